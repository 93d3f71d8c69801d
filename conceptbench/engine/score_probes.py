"""Rows of probes: what they found in a model, beside what they found in the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from conceptbench.core.results import Difference, Estimate, ResultRow
from conceptbench.core.schemas import Role, Task
from conceptbench.engine.measures import Measure
from conceptbench.engine.rows import ALL, NOTHING, RowMaker
from conceptbench.engine.seen import Model
from conceptbench.models.probe import Probe, Probed


def probe_rows(probes: Sequence[Measure[Probe]], maker: RowMaker, task: Task, model: Model, base: Model | None) -> list[ResultRow]:
    """The rows of a model.

    Args:
        probes: the suite's.
        maker: of rows.
        task: its concepts in order.
        model: whose; a model that no probe looked at has no rows.
        base: to compare with; None for the base itself.
    """
    rows = []
    roles: tuple[tuple[Role, Sequence[str]], ...] = (("target", task.targets), ("retained", task.retained))
    for probe in (m.metric for m in probes):
        for role, names in roles:
            there = [n for n in names if (probe.protocol, n) in model.probed]
            for concept in [ALL, *there] if there else []:
                chosen = there if concept == ALL else [concept]
                mine = {n: model.probed[probe.protocol, n] for n in chosen}
                theirs = {n: base.probed[probe.protocol, n] for n in chosen if (probe.protocol, n) in base.probed} if base else {}
                rows += [_row(probe, part, maker, model, role, concept, mine, theirs) for part in ("", *probe.parts)]
    return rows


def _joined(found: dict[str, Probed], part: str) -> tuple[list[float | None], list[str]]:
    """The values of all concepts one after the other, and the names of their clusters."""
    values, clusters = list[float | None](), list[str]()
    for concept, one in found.items():
        values += [float(v) if math.isfinite(v) else None for v in one.values[part]]
        clusters += [f"{concept}/{c}" for c in one.clusters]
    return values, clusters


def _row(probe: Probe, part: str, maker: RowMaker, model: Model, role: Role, concept: str, mine: dict[str, Probed], theirs: dict[str, Probed]) -> ResultRow:
    values, clusters = _joined(mine, part)
    better = "neither" if part else probe.better(role)
    options: dict[str, Any] = {"rate": False, "unit": probe.parts.get(part, probe.unit), "better": better}
    estimate = Estimate.of(values, clusters, planned=len(values), **options)
    if estimate.spread == 0 and estimate.scored > 1:  # a chance level is a number of the base's, not a measurement
        estimate = estimate.model_copy(update={"low": None, "high": None, "kind": f"none: the same for all {probe.spread_kind}"})
    if estimate.spread is not None:
        estimate = estimate.model_copy(update={"spread_kind": probe.spread_kind})
    base, delta = None, NOTHING
    if theirs.keys() == mine.keys():
        of_base, _ = _joined(theirs, part)
        base = Estimate.of(of_base, clusters, planned=len(of_base), **options).value
        delta = Difference.of(values, of_base, clusters, rate=False)
    return maker.row(probe, model, role, concept, estimate, base=base, delta=delta, partial=estimate.failed > 0, part=part, unit=options["unit"])
