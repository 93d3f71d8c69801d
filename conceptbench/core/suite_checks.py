"""Names in a suite that mean something elsewhere in it or in the registries: checked when it is loaded and when it is validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from conceptbench.core.documents import Document, Problem, unknown
from conceptbench.core.judge import JudgeCard
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.schemas import MetricSpec, Task, Watch
from conceptbench.core.trained_judges import TrainedJudgeSpec


def card_before_training(name: str, spec: TrainedJudgeSpec) -> JudgeCard:
    """What is known of a suite's own judge before it is trained: its role and its labels, but no checksum."""
    return JudgeCard(name, "classifier", "", "trained on the base's own images", "", "", {spec.head: tuple(spec.classes)})


def concepts_of(tasks: Iterable[Task]) -> list[str]:
    """Names of the concepts of tasks, each once."""
    return list(dict.fromkeys(n for t in tasks for n in (*t.targets, *t.retained, *t.unseen)))


def unknown_concepts(document: Document, tasks: Mapping[int, Task], known: Iterable[str]) -> list[Problem]:
    """Concepts of tasks (by their number in the suite) that do not exist."""
    names = set(known)
    return [
        unknown(document.path, document.line(("tasks", i, role, j)), f"concept of task {task.id!r}", concept, names)
        for i, task in tasks.items()
        for role, chosen in (("targets", task.targets), ("retained", task.retained), ("unseen", task.unseen))
        for j, concept in enumerate(chosen)
        if concept not in names
    ]


def unknown_plugins(
    document: Document, metrics: Mapping[int, MetricSpec], trained: Mapping[str, TrainedJudgeSpec], watch: Watch | None = None
) -> list[Problem]:
    """Metrics and judges of a suite that are neither installed nor, for judges of metrics, trained by the suite itself."""
    found: list[Problem] = []
    installed = JUDGES.names()

    def check(place: tuple[str | int, ...], kind: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            found.append(unknown(document.path, document.line(place), kind, name, known))

    for i, spec in metrics.items():
        check(("metrics", i, "metric"), "metric", spec.metric, METRICS.names())
        if spec.judge is not None:
            check(("metrics", i, "judge"), "judge", spec.judge, [*installed, *trained])
    for name, judge in trained.items():
        check(("judges", name, "trunk"), "judge", judge.trunk, installed)
    if watch is not None:
        check(("watch", "judge"), "judge", watch.judge, installed)
    return found


def shadowing_judges(document: Document, trained: Iterable[str]) -> list[Problem]:
    """Judges of a suite that have the name of a registered one: its numbers would pass for that one's."""
    taken = set(JUDGES.names())
    return [
        document.problem(("judges", n), f"the judge name {n!r} is taken by a registered judge; give the suite's own another") for n in trained if n in taken
    ]


def strays(document: Document, tasks: Iterable[Task], metrics: Mapping[int, MetricSpec], splits: Mapping[int, str]) -> list[Problem]:
    """What names something that is in none of the suite's tasks: concepts that metrics are limited to, splits; and splits named twice.

    Args:
        document: the suite's file.
        tasks: all of the file.
        metrics: by their number in it.
        splits: by their number in it.
    """
    chosen = list(tasks)
    concepts, ids = concepts_of(chosen), [t.id for t in chosen]
    found = [
        unknown(document.path, document.line(("metrics", i, "concepts", j)), f"concept of metric {spec.metric!r} in the suite's tasks", name, concepts)
        for i, spec in metrics.items()
        for j, name in enumerate(spec.concepts)
        if name not in concepts
    ]
    first: dict[str, int] = {}
    for j, name in splits.items():
        if name not in ids:
            found.append(unknown(document.path, document.line(("splits", j)), "split", name, ids))
        elif first.setdefault(name, j) != j:
            found.append(document.problem(("splits", j), f"the split {name!r} is named already, in line {document.line(('splits', first[name]))}"))
    return found
