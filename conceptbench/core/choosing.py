"""A suite cut to some of its tasks: with only what is left to measure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from conceptbench.core.errors import ConceptBenchError, UserInputError, unknown_name
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import OfImages, Quantity
from conceptbench.core.protocols import names_of, spelled_out
from conceptbench.core.registry import METRICS
from conceptbench.core.schemas import MetricSpec, Suite
from conceptbench.core.suite_checks import concepts_of
from conceptbench.core.whole_metric import DerivedMetric


def cut_to(suite: Suite, names: Sequence[str]) -> tuple[Suite, list[str]]:
    """The suite with only the named tasks, the splits among them, and the metrics that have something to measure there.

    Of the concepts that a metric is limited to only those of the tasks stay. A metric that is limited to others is left out, because
    without a limit it would be about all concepts; and so is a derived metric that is made of it.

    Args:
        suite: with every name in it checked.
        names: ids of tasks.

    Returns:
        The suite, and what was left out, for people.

    Raises:
        UserInputError: a task does not exist, or the headline would be left out.
    """
    ids = [t.id for t in suite.tasks]
    for name in names:
        if name not in ids:
            raise unknown_name(f"task of suite {suite.name}", name, ids, f"conceptbench show suite {suite.name}")
    tasks = tuple(t for t in suite.tasks if t.id in names)
    concepts = set(concepts_of(tasks))
    limited = [(m, m.model_copy(update={"concepts": tuple(c for c in m.concepts if c in concepts)})) for m in suite.metrics]
    dropped = [m for m, left in limited if m.concepts and not left.concepts]
    kept = [left for m, left in limited if left.concepts or not m.concepts]
    gone = _names(dropped)
    gone -= _names(kept) if gone else set()
    for name in (suite.headline.erased, suite.headline.kept):
        if name in gone:
            message = f"the headline metric {name!r} of suite {suite.name!r} is limited to concepts of other tasks than {', '.join(t.id for t in tasks)}"
            raise UserInputError(message, "choose a task with one of these concepts, too")
    metrics = [one for m in kept for one in _without(m, gone)]
    notes = [f"metric {m.metric!r} is left out, because it is limited to concepts of other tasks ({', '.join(m.concepts)})" for m in dropped]
    for metric in (d for m in kept for d in _quantities(m) if gone and isinstance(d, DerivedMetric)):
        notes += [f"metric {metric.id!r} is left out, because it is made of {name!r}" for name in metric.sources if name in gone]
    splits = tuple(s for s in suite.splits if s in names)
    return suite.model_copy(update={"tasks": tasks, "metrics": tuple(metrics), "splits": splits}), notes


def _quantities(spec: MetricSpec) -> list[Quantity]:
    """The metrics of a line of a suite, with stand-ins for judges, because ids are made of options; faulty ones are left to who loads them."""
    found = []
    kind: type[Quantity] = METRICS.load(spec.metric)
    for one in spelled_out(spec):
        with contextlib.suppress(ConceptBenchError, ValueError):
            found.append(kind(kind.Config(**one.options), JudgeCard(one.judge or "", "features", "", "", "", "", {})))
    return found


def _names(specs: Iterable[MetricSpec]) -> set[str]:
    """What a headline or a derived metric may call the metrics."""
    return {name for spec in specs for m in _quantities(spec) if isinstance(m, OfImages) for name in names_of(m.protocol)}


def _without(spec: MetricSpec, gone: set[str]) -> list[MetricSpec]:
    """A line of a suite without the derived metrics that are made of what is gone."""
    if not gone:
        return [spec]
    every = spelled_out(spec)
    left = [one for one in every if not any(isinstance(m, DerivedMetric) and gone.intersection(m.sources) for m in _quantities(one))]
    return [spec] if len(left) == len(every) else left
