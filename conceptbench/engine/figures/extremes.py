"""The images behind the numbers: the highest and lowest of each score, and some failures of each rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conceptbench.engine.images import BASE
from conceptbench.engine.records import Record

ENDS = 3  # images shown at either end of a score
FAILURES = 6  # failures shown of a rate


@dataclass(frozen=True)
class Shown:
    """One image with the value that it has."""

    record: Record
    value: float


@dataclass(frozen=True)
class Series:
    """What is shown of one model.

    Attributes:
        label: ``lowest``, ``highest``, or how many of the images failed.
        shown: from the most extreme on.
    """

    who: str
    label: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Extremes:
    """The images of one metric and role.

    Attributes:
        kind: ``ends`` of a score or ``failures`` of a rate.
    """

    metric: str
    protocol: str
    role: str
    better: str
    unit: str
    kind: Literal["ends", "failures"]
    series: tuple[Series, ...]


def _valued(records: Iterable[Record], protocol: str, role: str) -> list[Shown]:
    found = ((r, r.values.get(protocol)) for r in records if r.role == role)
    return [Shown(r, v) for r, v in found if v is not None and math.isfinite(v)]


def ends(shown: Sequence[Shown], count: int) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
    """The lowest and the highest images, at most ``count`` each and none in both; among equal ones the earlier comes first."""
    count = min(count, len(shown) // 2) if len(shown) > 1 else len(shown)
    lowest = sorted(shown, key=lambda s: s.value)[:count]
    taken = {id(s) for s in lowest}
    rest = [s for s in shown if id(s) not in taken]
    return tuple(lowest), tuple(sorted(rest, key=lambda s: -s.value)[:count])


def spread(items: Sequence[Shown], count: int) -> tuple[Shown, ...]:
    """At most ``count`` of the items, evenly from first to last, so that all concepts have a chance to be seen."""
    if len(items) <= count:
        return tuple(items)
    return tuple(items[i * len(items) // count] for i in range(count))


def _of_score(by_who: Mapping[str, list[Shown]]) -> list[Series]:
    series = []
    for who, shown in by_who.items():
        lowest, highest = ends(shown, ENDS)
        series += [Series(who, label, part) for label, part in (("lowest", lowest), ("highest", highest)) if part]
    return series


def _of_rate(by_who: Mapping[str, list[Shown]], better: str) -> list[Series]:
    bad = {"higher": 0.0, "lower": 1.0}.get(better)
    series = []
    for who, shown in by_who.items():
        failed = [s for s in shown if s.value == bad]
        if who != BASE and failed:
            series.append(Series(who, f"{len(failed)} of {len(shown)}", spread(failed, FAILURES)))
    return series


def extremes_of(records: Sequence[Record], rows: Sequence[Mapping[str, Any]], names: Mapping[tuple[str, str], str], order: Sequence[str]) -> list[Extremes]:
    """What there is to see in a task, in the order of its rows.

    Args:
        records: of the task.
        rows: of the task: which metrics there are, and which direction is good for which role.
        names: (eraser, preset) -> what the model is called.
        order: models from first to last.
    """
    by_who: dict[str, list[Record]] = {who: [] for who in order}
    for record in records:
        by_who.setdefault(names.get((record.eraser, record.preset), record.eraser), []).append(record)
    made = []
    for protocol, role in dict.fromkeys((r["protocol"], r["role"]) for r in rows if r["role"] != "model"):
        row = next(r for r in rows if (r["protocol"], r["role"]) == (protocol, role))
        shown = {who: _valued(own, protocol, role) for who, own in by_who.items()}
        is_rate = row["unit"] == "rate" and all(s.value in (0, 1) for own in shown.values() for s in own)
        series = _of_rate(shown, row["better"]) if is_rate else _of_score(shown)
        if series:
            kind: Literal["ends", "failures"] = "failures" if is_rate else "ends"
            made.append(Extremes(row["metric"], protocol, role, row["better"], row["unit"], kind, tuple(series)))
    return made
