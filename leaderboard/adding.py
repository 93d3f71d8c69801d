"""A method of one's own in a paper's table: one more row or column, measured as the table's own methods are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from conceptbench.core.errors import UserInputError
from conceptbench.core.manifests import load_suite
from conceptbench.engine.images import BASE
from conceptbench.engine.lineup import Entry as LineUpEntry
from conceptbench.engine.lineup import resolve
from conceptbench.leaderboard.specs import TIERS, Entry, Run, TableSpec, Tier, Where

Axes = tuple[tuple[Entry, ...], ...]
METHOD = ("eraser", "preset")
"""Fields of a result row that say which method it is of."""


def with_methods(spec: TableSpec, tier: Tier, erasers: Sequence[str]) -> TableSpec:
    """The table with further methods: each stands where the last of the table's own stands, and runs wherever that one runs.

    Args:
        spec: the table.
        tier: whose runs and presets are meant.
        erasers: as for ``conceptbench run --eraser``.

    Raises:
        UserInputError: the table has no axis of methods (it shows the unmodified model alone), or an eraser is there already or unknown.
    """
    for one in erasers:
        spec = _with_method(spec, tier, one, resolve(one, family=None, tier=tier))
    return spec


def _with_method(spec: TableSpec, tier: Tier, asked: str, method: LineUpEntry) -> TableSpec:
    axis, _, level = spec.methods.partition(".")
    blocks = getattr(spec, axis)
    found = [_sibling(block[int(level)], tier) for block in blocks]
    siblings = [s for s in found if s is not None]
    if not siblings:
        suites = ", ".join(f"conceptbench run {run.suite} --eraser NAME" for run in spec.tiers[tier].runs)
        raise UserInputError(f"table {spec.id} shows no method, so that {asked} has no place in it", f"run it on the table's suites: {suites}")
    line_ups = {run.id: _line_up(run, tier) for run in spec.tiers[tier].runs}
    if any(one.spec == method.spec for line_up in line_ups.values() for one in line_up.values()):
        raise UserInputError(f"{method.spec} is in table {spec.id} already", "name another eraser, or another preset or option of it")
    own = {(one.label, one.preset) for line_up in line_ups.values() for one in line_up.values()}
    grown = tuple(block if s is None else _grown(block, int(level), s, method, own) for block, s in zip(blocks, found, strict=True))
    runs = tuple(_running(run, line_ups[run.id], tier, siblings, asked) for run in spec.tiers[tier].runs)
    tiers = {**spec.tiers, tier: spec.tiers[tier].model_copy(update={"runs": runs})}
    return spec.model_copy(update={axis: grown, "tiers": tiers, "added": {**spec.added, method.spec: siblings[-1].label}})


def _line_up(run: Run, tier: Tier) -> dict[str, LineUpEntry]:
    """What the run's erasers are, by what they are asked for as."""
    asked = load_suite(run.suite).erasers if run.erasers is None else run.erasers
    return {one: resolve(one, family=None, tier=tier) for one in asked}


def _sibling(entries: Sequence[Entry], tier: Tier) -> Entry | None:
    """The last entry of an axis that is of a method."""
    return next((e for e in reversed(entries) if _erasers(e, tier) - {BASE}), None)


def _erasers(entry: Entry, tier: Tier) -> set[str]:
    asked = entry.conditions(tier).get("eraser", [])
    return {str(a) for a in asked} if isinstance(asked, list) else {str(asked)}


def _grown(block: Axes, level: int, sibling: Entry, method: LineUpEntry, own: Collection[tuple[str, str]]) -> Axes:
    """The block with one more entry; those of the same eraser go on to mean what is the table's own, (label, preset) of its line-ups."""

    def others(where: Where) -> Where:
        return {k: v for k, v in where.items() if k not in METHOD}

    def told_apart(entry: Entry) -> Entry:
        named = _erasers(entry, "mini") | _erasers(entry, "paper")
        if method.label not in named or any("preset" in entry.conditions(t) for t in TIERS):
            return entry
        there = sorted({label for label, _ in own if label in named} | named & {BASE})
        presets = sorted({preset for label, preset in own if label in named})
        narrow = {"where": {**entry.where, "eraser": there, "preset": [*presets, ""]}}  # the base has none
        return entry.model_copy(update={**narrow, **{t: {k: v for k, v in getattr(entry, t).items() if k != "eraser"} for t in TIERS}})

    new = {"label": method.spec, "where": {**others(sibling.where), "eraser": method.label, "preset": method.preset}}
    entry = sibling.model_copy(update={**new, **{t: others(getattr(sibling, t)) for t in TIERS}})
    return (*block[:level], (*map(told_apart, block[level]), entry), *block[level + 1 :])


def _running(run: Run, line_up: Mapping[str, LineUpEntry], tier: Tier, siblings: Sequence[Entry], asked: str) -> Run:
    """The run with the method in its line-up, if a sibling is in it."""
    labels = {one.label for one in line_up.values()}
    here = any(_erasers(s, tier) & labels and s.conditions(tier).get("run", run.id) == run.id for s in siblings)
    return run.model_copy(update={"erasers": (*line_up, asked)}) if here else run
