"""Every cell of every shipped table asks for a row that the runs of its tier make: names of tasks, methods, presets, concepts and metrics fit."""

from __future__ import annotations

import functools

import pytest
from tabular import row

from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import load_suite
from conceptbench.core.protocols import every_metric
from conceptbench.core.registry import METRICS
from conceptbench.core.whole_metric import ErasureMetric
from conceptbench.engine.lineup import resolve
from conceptbench.leaderboard.cells import fill
from conceptbench.leaderboard.spec_files import load_table, table_ids
from conceptbench.models.probe import Probe

FAMILIES = {"digits-cvae": "cvae", "mnist-cvae": "cvae", "cifar10-ddpm": "ddpm", "stl10-ddpm": "ddpm", "stabilityai/stable-diffusion-2-1-base": "sd2"}
CASES = [(name, tier) for name in table_ids() for tier in load_table(name).tiers]


@functools.cache
def metrics_of(suite):
    """(id, whether it is of an erasure as a whole, whether the base has no row of it, unit, concepts that it is limited to) of a suite's metrics."""
    made = []
    for spec in every_metric(load_suite(suite).metrics):
        kind = METRICS.load(spec.metric)
        card = JudgeCard(spec.judge or "", kind.role or "features", "", "", "", "", {})
        metric = kind(kind.Config.model_validate(spec.options), card)
        whole = issubclass(kind, ErasureMetric)
        made.append((metric.id, whole, whole or getattr(metric, "needs", "") == "pairs", metric.unit, spec.concepts))
        made += [(f"{metric.id}-{part}", False, False, unit, spec.concepts) for part, unit in (kind.parts.items() if issubclass(kind, Probe) else ())]
    return made


def rows_of(run, tier):
    """The rows that a run will have, with made-up values."""
    suite = load_suite(run.suite)
    base = run.base or suite.base
    family = FAMILIES.get(base, "sd1")
    level = "mini" if base == "mini" or base.startswith("digits") else "paper"
    entries = [resolve(e, family=family, tier=level) for e in (suite.erasers if run.erasers is None else run.erasers)]
    tasks = [t for t in suite.tasks if t.id in run.tasks] if run.tasks else list(suite.tasks)
    found = []
    for eraser, preset in [("base", ""), *((e.label, e.preset) for e in entries)]:
        for task in [*tasks, *([None] if suite.splits else [])]:
            for metric, whole, of_erasures, unit, limited in metrics_of(run.suite):
                common = {"suite": suite.name, "base": base, "eraser": eraser, "preset": preset, "metric": metric, "protocol": metric, "unit": unit}
                common["task"] = "*" if task is None else task.id
                if of_erasures and eraser == "base":
                    continue
                if whole:
                    found.append(row(**common, role="model", concept="*"))
                    continue
                roles = {
                    r: getattr(task or tasks[0], a) for r, a in (("target", "erased"), ("restored", "restored"), ("retained", "retained"), ("unseen", "unseen"))
                }
                for role, concepts in roles.items():
                    kept = [c for c in concepts if not limited or c in limited]
                    found += [row(**common, role=role, concept=c) for c in (["*", *kept] if kept else ()) if task is not None or c == "*"]
    return found


@pytest.mark.parametrize(("name", "tier"), CASES)
def test_every_cell_will_be_measured(name, tier):
    spec = load_table(name)
    table = fill(spec, tier, {run.id: rows_of(run, tier) for run in spec.tiers[tier].runs}, force=True)
    assert [(c.row, c.column) for c in table.cells if c.measured is None and c.defined is None] == []
