"""Rows of probes: what they found in a model, beside what they found in the base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from conceptbench.core.results import Difference, Estimate, ResultRow, RowRole
from conceptbench.core.schemas import Concept, Task
from conceptbench.engine.groups import ALL, asked_role, concepts_by_role
from conceptbench.engine.measures import Measure
from conceptbench.engine.rows import NOTHING, RowMaker
from conceptbench.engine.seen import Model
from conceptbench.models.probe import Probe, Probed


def probe_rows(
    probes: Sequence[Measure[Probe]], maker: RowMaker, task: Task, concepts: Mapping[str, Concept], model: Model, base: Model | None
) -> list[ResultRow]:
    """The rows of a model; what was planned and not found is counted and named.

    Args:
        probes: the suite's.
        maker: of rows.
        task: its concepts in order.
        concepts: by name.
        model: the base or an erasure; images without weights cannot be probed and have no rows.
        base: to compare with; None for the base itself.
    """
    if base is not None and not model.whole:
        return []
    rows = []
    for measure in probes:
        for role, names in concepts_by_role(task).items():
            planned = [n for n in names if measure.asks_about(concepts[n], asked_role(role))]
            for concept in [ALL, *planned] if planned else []:
                chosen = planned if concept == ALL else [concept]
                rows += [_row(measure.metric, part, maker, model, role, concept, chosen, base) for part in ("", *measure.metric.parts)]
    return rows


def _found(probe: Probe, model: Model, names: Sequence[str]) -> dict[str, Probed]:
    return {n: model.probed[probe.protocol, n] for n in names if (probe.protocol, n) in model.probed}


def _joined(found: Mapping[str, Probed], part: str) -> tuple[list[float | None], list[str]]:
    """The values of all concepts one after the other, and the names of their clusters."""
    values, clusters = list[float | None](), list[str]()
    for concept, one in found.items():
        values += [float(v) if math.isfinite(v) else None for v in one.values[part]]
        clusters += [f"{concept}/{c}" for c in one.clusters]
    return values, clusters


def _row(probe: Probe, part: str, maker: RowMaker, model: Model, role: RowRole, concept: str, names: Sequence[str], base: Model | None) -> ResultRow:
    mine, theirs = _found(probe, model, names), _found(probe, base or model, names)
    unit, better = probe.parts.get(part, probe.unit), "neither" if part else probe.better(asked_role(role))
    estimate = _estimate(probe, part, mine, names, unit, better)
    base_value, delta = None, NOTHING
    if theirs.keys() == set(names):
        base_value = _estimate(probe, part, theirs, names, unit, better).value
    if base is not None and theirs.keys() == mine.keys() and mine:
        values, clusters = _joined(mine, part)
        delta = Difference.of(values, _joined(theirs, part)[0], clusters, rate=False)
    partial = len(mine) < len(names)
    return maker.row(probe, model, role, concept, estimate, base=base_value, delta=delta, partial=partial, part=part, unit=unit)


def _estimate(probe: Probe, part: str, found: Mapping[str, Probed], names: Sequence[str], unit: str, better: str) -> Estimate:
    values, clusters = _joined(found, part)
    missing = [n for n in names if n not in found]
    estimate = Estimate.of(values, clusters, planned=len(values) + len(missing), rate=False, unit=unit, better=better)
    update: dict[str, Any] = {}
    if estimate.spread is not None:
        update["spread_kind"] = probe.spread_kind
    if estimate.spread == 0 and estimate.scored > 1:  # a chance level is a number of the base's, not a measurement
        update |= {"low": None, "high": None, "kind": f"none: the same for all {probe.spread_kind}"}
    if estimate.value is None:
        update["reason"] = f"undefined for all {probe.spread_kind}" if values else "not probed"
    if missing:
        update["reason"] = f"not probed: {', '.join(missing)}"
    return estimate.model_copy(update=update)
