"""The two sides of a comparison: a run's folder and a model in it, and whether two of them may be compared at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.engine.records import Record, read_records

HINT = "give a folder that `conceptbench run --output` wrote, with :ERASER[:PRESET] after it for one model of several"


@dataclass(frozen=True)
class Side:
    """A run's folder, and which of its models is compared (None: all).

    Attributes:
        spec: what the user wrote.
        canonical: of ``results.json``.
        records: by eraser and preset.
        wanted: eraser and preset of the model.
        better: (protocol, role) -> direction that is good.
        units: protocol -> unit.
    """

    spec: str
    canonical: Mapping[str, Any]
    records: Mapping[tuple[str, str], tuple[Record, ...]]
    wanted: tuple[str, str] | None
    better: Mapping[tuple[str, str], str]
    units: Mapping[str, str]

    def models(self) -> list[tuple[str, str]]:
        """Eraser and preset of the models to compare."""
        return list(self.records) if self.wanted is None else [self.wanted]

    def protocols(self) -> list[str]:
        """Protocols of all records, in the order of the file."""
        return list(dict.fromkeys(p for rs in self.records.values() for r in rs for p in r.values))


def _split(spec: str) -> tuple[Path, str]:
    """``runs/mini:esd-x:paper`` to the folder and the rest: the shortest beginning that is a folder."""
    parts = spec.split(":")
    for i in range(1, len(parts) + 1):
        path = Path(":".join(parts[:i]))
        if path.is_dir():
            return path, ":".join(parts[i:])
    raise UserInputError(f"no such run: {parts[0]!r}", HINT)


def read_side(spec: str) -> Side:
    """A run from ``FOLDER[:ERASER[:PRESET]]``.

    Raises:
        UserInputError: there is no such folder, its files are not those of a run, or it has no such model.
    """
    folder, name = _split(spec)
    try:
        canonical = json.loads((folder / "results.json").read_text(encoding="utf-8"))["canonical"]
        _identity(canonical)
        rows = [(str(r["protocol"]), str(r["role"]), str(r["better"]), str(r["unit"])) for r in canonical["rows"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserInputError(f"{folder} has no readable results.json: {error!r}", HINT) from error
    records: dict[tuple[str, str], list[Record]] = {}
    for record in read_records(folder):
        records.setdefault((record.eraser, record.preset), []).append(record)
    models = {k: tuple(v) for k, v in records.items()}
    wanted = _model(name, list(models), folder) if name else None
    return Side(spec, canonical, models, wanted, {(p, role): better for p, role, better, _ in rows}, {p: unit for p, _, _, unit in rows})


def _model(name: str, models: Sequence[tuple[str, str]], folder: Path) -> tuple[str, str]:
    fitting = [m for m in models if name in (m[0], label(m))]
    if not fitting:
        raise unknown_name(f"eraser in {folder}", name, {label(m) for m in models})
    if len(fitting) > 1:
        raise UserInputError(f"{folder} has several presets of {name!r}", f"say which: {', '.join(label(m) for m in fitting)}")
    return fitting[0]


def label(model: tuple[str, str]) -> str:
    """``eraser:preset``, or the eraser alone where there is no preset (the base)."""
    return ":".join(part for part in model if part)


# -- may they be compared? -------------------------------------------------------------------------------------------
def _identity(canonical: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same on both sides, in words."""
    suite, base = canonical["suite"], canonical["base"]
    parts = ", ".join(f"{n} {h[:8]}" for n, h in sorted(base["components"].items()))
    return {
        "suite": f"{suite['name']} {str(suite['version']).partition('.')[0]}.x",
        "base": f"{parts}; {base.get('precision', 'fp32')}",
        "sampler": ", ".join(f"{k} {v}" for k, v in sorted(suite["sampler"].items())),
        "split": "development" if canonical["development"] else "heldout",
        **{f"judge {n}": str(j["sha256"])[:12] for n, j in canonical["judges"].items()},
    }


def metric_of(protocol: str) -> str:
    """The metric's id in a protocol."""
    return protocol.partition("@")[0]


def differences(a: Side, b: Side) -> list[str]:
    """Why numbers of the two must not be compared, in words; empty if they may."""
    one, two = _identity(a.canonical), _identity(b.canonical)
    found = [f"{k}: {one[k]} and {two[k]}" for k in one if k in two and one[k] != two[k]]
    for metric in dict.fromkeys(map(metric_of, a.protocols())):
        of_a, of_b = ([p for p in side.protocols() if metric_of(p) == metric] for side in (a, b))
        if of_b and not set(of_a) & set(of_b):
            found.append(f"protocol of {metric}: {', '.join(of_a)} and {', '.join(of_b)}")
    return found


def protocol_pairs(a: Side, b: Side) -> list[tuple[str, str]]:
    """Protocols that both have; where a metric has none in common, by force in the order of the files."""
    pairs = []
    for metric in dict.fromkeys(map(metric_of, a.protocols())):
        of_a, of_b = ([p for p in side.protocols() if metric_of(p) == metric] for side in (a, b))
        common = [(p, p) for p in of_a if p in of_b]
        pairs += common or list(zip(of_a, of_b, strict=False))
    return pairs
