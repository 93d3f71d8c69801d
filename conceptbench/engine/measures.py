"""What a suite measures: its metrics by kind, and the judges that they ask, each loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from conceptbench.core.errors import NotComparableError, UserInputError, unknown_name
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Metric, OfImages, Quantity, SetMetric
from conceptbench.core.protocols import every_metric, names_of
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.schemas import Concept, MetricSpec, Role, Suite
from conceptbench.core.whole_metric import DerivedMetric, ErasureMetric
from conceptbench.models.probe import Probe

NO_JUDGE = JudgeCard("", "features", "", "", "", "", {})
LoadJudge = Callable[[str], Any]


Kind = TypeVar("Kind", bound=Quantity, covariant=True)


@dataclass(frozen=True)
class Measure(Generic[Kind]):
    """A metric as a suite has it.

    Attributes:
        metric: with its options.
        judge: whom it asks, by name; may be empty.
        only: the concepts that it is about; all that it applies to if empty.
    """

    metric: Kind
    judge: str = ""
    only: tuple[str, ...] = ()

    def asks_about(self, concept: Concept, role: Role) -> bool:
        """Whether it is measured for a concept of this role."""
        return (not self.only or concept.name in self.only) and bool(self.metric.applies(concept, role))  # type: ignore[attr-defined] # those that are about concepts


@dataclass(frozen=True)
class Measures:
    """What a suite measures, each kind in the suite's order.

    Attributes:
        images, sets, erasures, derived, probes: the metrics.
        judges: name -> judge.
        order: ids of all metrics in the suite's order.
    """

    images: tuple[Measure[Metric], ...]
    sets: tuple[Measure[SetMetric], ...]
    erasures: tuple[ErasureMetric, ...]
    derived: tuple[DerivedMetric, ...]
    probes: tuple[Measure[Probe], ...]
    judges: Mapping[str, Any]
    order: tuple[str, ...]

    def of_images(self) -> list[Measure[OfImages]]:
        """Everything that asks a judge about images."""
        return [*self.images, *self.sets]


def registered_judge(name: str) -> Any:
    """A judge by its registered name."""
    return JUDGES.load(name)()


def load_measures(suite: Suite, load_judge: LoadJudge = registered_judge) -> Measures:
    """The suite's metrics and the judges that they ask.

    Args:
        suite: what to measure.
        load_judge: gives a judge by name; a suite's trained judges are made with the base at hand.

    Raises:
        UserInputError: a metric has no judge of the role it needs, an option is wrong, or a derived metric's source is missing.
        NotComparableError: a headline or a derived metric names a metric that the suite has under two protocols.
    """
    judges: dict[str, Any] = {}
    made: list[Measure[Any]] = []
    for spec in every_metric(suite.metrics):
        kind: type[Quantity] = METRICS.load(spec.metric)
        made.append(Measure(kind(_options(kind, spec), _card(kind, spec, judges, load_judge)), spec.judge or "", spec.concepts))
    measures = Measures(
        images=tuple(m for m in made if isinstance(m.metric, Metric)),
        sets=tuple(m for m in made if isinstance(m.metric, SetMetric)),
        erasures=tuple(m.metric for m in made if isinstance(m.metric, ErasureMetric)),
        derived=tuple(m.metric for m in made if isinstance(m.metric, DerivedMetric)),
        probes=tuple(m for m in made if isinstance(m.metric, Probe)),
        judges=judges,
        order=tuple(dict.fromkeys(m.metric.id for m in made)),
    )
    _check_concepts(suite, made)
    _check_named(suite, measures)
    return measures


def _check_concepts(suite: Suite, made: Sequence[Measure[Any]]) -> None:
    """Every concept that a metric is limited to is in a task."""
    known = {name for task in suite.tasks for name in (*task.targets, *task.retained)}
    for measure in made:
        for name in measure.only:
            if name not in known:
                raise unknown_name(f"concept of metric {measure.metric.id!r}", name, known)


def _check_named(suite: Suite, measures: Measures) -> None:
    """Every metric that is named by its id alone exists, and exists once."""
    protocols: dict[str, list[str]] = {}
    for measure in measures.of_images():
        for name in names_of(measure.metric.protocol):
            protocols.setdefault(name, []).append(measure.metric.protocol)
    named = [("headline metric", n) for n in (suite.headline.erased, suite.headline.kept)]
    named += [(f"metric that {d.id} is made of", n) for d in measures.derived for n in d.sources]
    for what, name in named:
        if name not in protocols:
            raise unknown_name(what, name, protocols)
        if len(protocols[name]) > 1:
            raise NotComparableError(
                f"suite {suite.name!r}: the {what} {name!r} has {len(protocols[name])} protocols: {', '.join(protocols[name])}",
                "they are different numbers: keep one of them in this suite, or name a derived metric's sources as ID/JUDGE",
            )


def _card(kind: type[Quantity], spec: MetricSpec, judges: dict[str, Any], load_judge: LoadJudge) -> JudgeCard:
    if not kind.role:
        if spec.judge is not None:
            raise UserInputError(f"metric {spec.metric!r} asks no judge, and the suite gives it {spec.judge!r}", "leave the judge out")
        return NO_JUDGE
    if spec.judge is None:
        raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}", f"judges: {', '.join(JUDGES.names())}")
    if spec.judge not in judges:
        judges[spec.judge] = load_judge(spec.judge)
    card: JudgeCard = judges[spec.judge].card
    if card.role != kind.role:
        raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}, and {spec.judge!r} is a {card.role}")
    return card


def _options(kind: type[Quantity], spec: MetricSpec) -> Any:
    try:
        return kind.Config(**spec.options)
    except ValueError as error:
        raise UserInputError(f"options of metric {spec.metric!r}: {error}") from error


def in_suite_order(rows: Sequence[Any], order: Sequence[str]) -> list[Any]:
    """Result rows sorted by their metric's place in the suite; parts (``m_score-chance``) follow their metric."""
    place = {name: i for i, name in enumerate(order)}

    def of(metric: str) -> int:
        while metric not in place and "-" in metric:
            metric = metric.rpartition("-")[0]
        return place.get(metric, len(place))

    return sorted(rows, key=lambda r: of(r.metric))
