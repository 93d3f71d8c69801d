"""Rows over several tasks that are splits of one experiment: the value over all of them, and its standard deviation over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from conceptbench.core.results import Estimate, ResultRow
from conceptbench.core.schemas import Suite
from conceptbench.engine.groups import ALL, ROLES, Group, group_of
from conceptbench.engine.rows import NOTHING
from conceptbench.engine.scoring import TaskScores, Values, difference_of, estimate_of, value_of
from conceptbench.engine.seen import Model


def split_rows(every: Sequence[TaskScores], suite: Suite, failures: Mapping[tuple[str, str], str]) -> list[ResultRow]:
    """The rows of the task ``*`` for a suite with splits (KPOP, sec. 4.1: four splits of five classes); none for others.

    A value is over the images of all splits, with an interval by prompt; ``spread`` is the standard deviation (of the
    population) of the splits' own values.

    Args:
        every: scored tasks.
        suite: it names the splits; a split that is no task was refused before.
        failures: (eraser spec, task) -> why its erasure was not made.
    """
    by_task = {s.task.id: s for s in every}
    chosen = [by_task[name] for name in suite.splits]
    if len(chosen) < 2:
        return []
    models = [m for m in chosen[0].values if all(m in s.values for s in chosen)]
    rows = []
    for model in models:
        reasons = [failures[spec, task] for task in suite.splits if (spec := ":".join(model), task) in failures]
        failed = {"status": "failed", "reason": "; ".join(reasons)} if reasons else {}
        rows += [row.model_copy(update=failed) for row in _of_model(chosen, model, models[0])]
    return rows


def _of_model(splits: Sequence[TaskScores], model: tuple[str, str], base: tuple[str, str]) -> list[ResultRow]:
    rows = []
    for n, measure in enumerate(splits[0].measures.images):
        metric = measure.metric
        if metric.needs == "pairs" and model == base:
            continue
        for role in ROLES:
            groups = [group_of(t.chosen[n], t.roles, role) for t in splits]
            if not all(g.images for g in groups):
                continue
            mine, theirs = ([t.values[m][n] for t in splits] for m in (model, base))
            group = Group(role, ALL, list(enumerate(s for g in groups for _, s in g.images)))
            values, of_base = _joined(groups, mine), _joined(groups, theirs)
            estimate = _spread(estimate_of(metric, group, values), [estimate_of(metric, g, v) for g, v in zip(groups, mine, strict=True)])
            one = splits[0].models[model]
            kept = {k: v for k, v in one.extra.items() if k in ("train_seed", "plugin_sha256")}  # what the splits' erasures share
            shown = Model(*model, key_of=lambda _: "", heard={}, extra={"train_seed": None, **kept})
            paired = metric.needs == "images"
            base_value = value_of(metric, group, of_base) if paired else None
            delta = difference_of(metric, group, values, of_base) if paired and model != base else NOTHING
            partial = not all(values.heard) or estimate.failed > 0
            maker = replace(splits[0].maker, task=ALL)
            rows.append(maker.row(metric, shown, role, ALL, estimate, base=base_value, delta=delta, partial=partial))
    return rows


def _joined(groups: Sequence[Group], values: Sequence[Values]) -> Values:
    """The values of the groups' images, one group after the other."""
    places = [(v, j) for g, v in zip(groups, values, strict=True) for j, _ in g.images]
    return Values([v.of[j] for v, j in places], [v.heard[j] for v, j in places], [v.counted[j] for v, j in places])


def _spread(whole: Estimate, parts: Sequence[Estimate]) -> Estimate:
    """With the standard deviation over the splits' values; none if one of them has no value."""
    values = [p.value for p in parts if p.value is not None]
    if len(values) < len(parts):
        return whole.model_copy(update={"spread": None, "spread_kind": ""})
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    return whole.model_copy(update={"spread": deviation, "spread_kind": f"{len(values)} tasks"})
