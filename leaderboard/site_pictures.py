"""Sample pairs for the page: for each concept the same prompts and noise under the base and under each eraser, from runs' stores."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from conceptbench.core.errors import UserInputError
from conceptbench.core.manifests import load_concepts
from conceptbench.core.results import BASE, ResultRow
from conceptbench.core.schemas import Suite
from conceptbench.engine.figures.tiles import picture
from conceptbench.engine.records import Record, read_records
from conceptbench.engine.store import Store
from conceptbench.leaderboard.site_data import major_of
from conceptbench.leaderboard.site_tabs import ROLES

PAIRS = 6  # prompts shown a concept
LARGEST = 5_000_000  # bytes of all images in a page


@dataclass(frozen=True)
class Run:
    """A finished run: its suite, where its images are, and which weights made them.

    Attributes:
        weights: (task, eraser, preset) -> what :func:`model_of` says of its rows.
    """

    suite: Suite
    store: Path
    weights: Mapping[tuple[str, str, str], str]
    records: Sequence[Record]


@dataclass(frozen=True)
class Pictures:
    """What the page embeds.

    Attributes:
        strips: ``[suite, major, task, concept, model]`` as JSON -> the images of a model side by side.
        shown: ``[suite, major, task, concept]`` as JSON -> the prompts, and whether images are hidden until they are asked for.
        left_out: strips for which there was no room.
    """

    strips: dict[str, dict[str, Any]]
    shown: dict[str, dict[str, Any]]
    left_out: int = 0


def model_of(row: ResultRow | Mapping[str, Any]) -> str:
    """What made an image: the hash of the erasure's weights, or of the base's; empty where it is not known."""
    get = row.get if isinstance(row, Mapping) else lambda name: getattr(row, name)
    return f"base {get('base_sha256')}" if get("eraser") == BASE else str(get("erasure_sha256") or "")


def read_run(folder: Path) -> Run:
    """A run's folder.

    Raises:
        UserInputError: it has no readable results or records, or the store with its images is gone.
    """
    hint = "give the folder that `conceptbench run --output` wrote"
    try:
        document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        canonical = document["canonical"]
        suite = Suite.model_validate(canonical["suite"])
        weights = {(r["task"], r["eraser"], r["preset"]): found for r in canonical["rows"] if (found := model_of(r))}
        store = Path(document["store"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise UserInputError(f"no readable results in {folder}: {error}", hint) from error
    if not store.is_dir():
        raise UserInputError(f"the store {store}, in which the images of {folder} were, is not there", "run it again, or leave out --images")
    return Run(suite, store, weights, list(read_records(folder)))


def sample_pairs(runs: Sequence[Run], rows: Sequence[ResultRow], largest: int = LARGEST) -> Pictures:
    """The images of the runs that belong to rows of the board: made by the very weights that a row names.

    Args:
        runs: whose images.
        rows: of the board.
        largest: bytes of all images together; targets come first, then what is brought back, unseen and kept.
    """
    wanted = {(r.suite, major_of(r.suite_version), r.task, model_of(r)) for r in rows}
    groups = [group for run in runs for group in _groups(run, wanted)]
    groups.sort(key=lambda g: (_weight(g.role), g.number))
    strips: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Any]] = {}
    left_out = used = 0  # once one has no room, none that is less important has
    for group in groups:
        for model, keys in group.models.items():
            name = _name(*group.place, model)
            if name in strips:
                continue
            strip = None if left_out else picture(group.store, keys)
            if strip is None or used + len(strip.uri) > largest:
                left_out += 1
                continue
            used += len(strip.uri)
            strips[name] = {"uri": strip.uri, "height": strip.height, "sharp": strip.sharp, "count": len(keys)}
            shown.setdefault(_name(*group.place), {"prompts": list(group.prompts), "hidden": group.hidden})
    return Pictures(strips, shown, left_out)


def _weight(role: str) -> int:
    """Kept concepts are many and look as they did: they come last."""
    return len(ROLES) if role == "retained" else ROLES.index(role) if role in ROLES else len(ROLES)


def _name(*parts: str) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class _Group:
    """One concept of a task: for each model the keys of the same images."""

    place: tuple[str, str, str, str]
    role: str
    number: int
    hidden: bool
    prompts: tuple[str, ...]
    models: Mapping[str, list[str]]
    store: Store


def _groups(run: Run, wanted: Collection[tuple[str, str, str, str]]) -> Iterator[_Group]:
    suite, major, store = run.suite.name, major_of(run.suite.version), Store(run.store)
    hidden = _hidden(run.suite)
    found: dict[tuple[str, str, str], dict[str, dict[tuple[Any, ...], Record]]] = {}
    for record in run.records:
        model = run.weights.get((record.task, record.eraser, record.preset), "")
        if model and (suite, major, record.task, model) in wanted:
            found.setdefault((record.task, record.concept, record.role), {}).setdefault(model, {})[record.pair] = record
    for number, ((task, concept, role), models) in enumerate(found.items()):
        base = next((of for model, of in models.items() if model.startswith("base ")), None)
        if base is None:
            continue
        pairs = [p for p, r in base.items() if store.has_image(r.image)][:PAIRS]
        if not pairs:
            continue
        keys = {model: [of[p].image if p in of else "" for p in pairs] for model, of in models.items()}
        yield _Group((suite, major, task, concept), role, number, concept in hidden, tuple(base[p].prompt for p in pairs), keys, store)


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


def _hidden(suite: Suite) -> Collection[str] | _Everything:
    """Concepts whose images are hidden until they are asked for: explicit ones, and all where the kinds are not known."""
    try:
        return {name for name, c in load_concepts(suite.concepts).items() if c.kind == "explicit"}
    except UserInputError:
        return _Everything()
