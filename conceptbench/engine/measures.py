"""What a suite measures: its metrics by kind, and the judges that they ask, each loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Metric, OfImages, Quantity, SetMetric
from conceptbench.core.metric_checks import limit_problem, watch_problem
from conceptbench.core.protocols import by_name, protocol_of_headline, protocol_of_source, spelled_out
from conceptbench.core.registry import JUDGES, METRICS, source_hash
from conceptbench.core.schemas import Concept, MetricSpec, Role, Suite
from conceptbench.core.suite_checks import card_before_training
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

    Everything is checked before the first of the suite's own judges is asked for, because that may have to be trained.

    Args:
        suite: what to measure.
        load_judge: gives a judge by name; a suite's trained judges are made with the base at hand.

    Raises:
        UserInputError: a metric has no judge of the role it needs, an option is wrong, a metric is there twice or limited to
            concepts where it has no rows by concept, or the headline's metric or a derived metric's source is missing.
        NotComparableError: a headline or a derived metric names a metric that the suite has under two protocols.
    """
    numbered = [(number, one) for number, spec in enumerate(suite.metrics, 1) for one in spelled_out(spec)]
    trained = {name: card_before_training(name, spec) for name, spec in suite.judges.items()}
    judges: dict[str, Any] = {}

    def card_of(name: str) -> JudgeCard:
        if name not in judges:
            judges[name] = load_judge(name)
        card: JudgeCard = judges[name].card
        return card

    _check_watched(suite)
    made = [_measure(spec, lambda name: trained.get(name) or card_of(name)) for _, spec in numbered]
    _check_twice(suite, [number for number, _ in numbered], made)
    _check_named(suite, made)
    made = [_measure(spec, card_of) if spec.judge in trained else m for (_, spec), m in zip(numbered, made, strict=True)]
    return Measures(
        images=tuple(m for m in made if isinstance(m.metric, Metric)),
        sets=tuple(m for m in made if isinstance(m.metric, SetMetric)),
        erasures=tuple(m.metric for m in made if isinstance(m.metric, ErasureMetric)),
        derived=tuple(m.metric for m in made if isinstance(m.metric, DerivedMetric)),
        probes=tuple(m for m in made if isinstance(m.metric, Probe)),
        judges={m.judge: judges[m.judge] for m in made if m.judge},
        order=tuple(dict.fromkeys(m.metric.id for m in made)),
    )


def metric_sources(measures: Measures) -> dict[str, str]:
    """Protocol of every metric -> the hash of the source that computes it."""
    every: list[Quantity] = [*(m.metric for m in (*measures.images, *measures.sets, *measures.probes)), *measures.erasures, *measures.derived]
    own = {m.protocol: [c for c in type(m).__mro__ if c.__module__ not in ("builtins", "abc", "typing")] for m in every}
    return {protocol: source_hash(classes) for protocol, classes in own.items()}


def source_protocols(measures: Measures) -> dict[str, str]:
    """Name (``ID`` or ``ID/JUDGE``) of a metric of images or of sets -> its protocol, for names that mean one."""
    return {name: found[0] for name, found in by_name(m.metric.protocol for m in measures.of_images()).items() if len(found) == 1}


def _measure(spec: MetricSpec, card_of: Callable[[str], JudgeCard]) -> Measure[Any]:
    kind: type[Quantity] = METRICS.load(spec.metric)
    limited = limit_problem(kind, spec)
    if limited:
        raise UserInputError(limited, f"it is limited to {', '.join(spec.concepts)}")
    return Measure(kind(options_of(kind, spec), _card(kind, spec, card_of)), spec.judge or "", spec.concepts)


def _check_watched(suite: Suite) -> None:
    """Metrics of a watched training fit what the suite watches."""
    problems = [p for spec in suite.metrics if (p := watch_problem(METRICS.load(spec.metric), spec, suite.watch))]
    if problems:
        raise UserInputError(problems[0])


def _check_twice(suite: Suite, numbers: Sequence[int], made: Sequence[Measure[Any]]) -> None:
    """No two metrics have one protocol: their rows could not be told apart."""
    first: dict[str, int] = {}
    for number, measure in zip(numbers, made, strict=True):
        protocol = measure.metric.protocol
        if protocol in first:
            raise UserInputError(
                f"metric {measure.metric.id!r} with this judge is in the suite already: "
                f"numbers {first[protocol]} and {number} of the metrics of {suite.name!r} are both {protocol}",
                "keep one of them",
            )
        first[protocol] = number


def _check_named(suite: Suite, made: Sequence[Measure[Any]]) -> None:
    """Every metric that is named by its id alone exists, and exists once."""
    protocols = [m.metric.protocol for m in made if isinstance(m.metric, OfImages)]
    for name in (suite.headline.erased, suite.headline.kept):
        protocol_of_headline(name, protocols)
    for derived in (m.metric for m in made if isinstance(m.metric, DerivedMetric)):
        for name in derived.sources:
            protocol_of_source(derived.id, name, protocols)


def _card(kind: type[Quantity], spec: MetricSpec, card_of: Callable[[str], JudgeCard]) -> JudgeCard:
    if not kind.role:
        if spec.judge is not None:
            raise UserInputError(f"metric {spec.metric!r} asks no judge, and the suite gives it {spec.judge!r}", "leave the judge out")
        return NO_JUDGE
    if spec.judge is None:
        raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}", f"judges: {', '.join(JUDGES.names())}")
    card = card_of(spec.judge)
    if card.role != kind.role:
        raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}, and {spec.judge!r} is a {card.role}")
    return card


def options_of(kind: type[Quantity], spec: MetricSpec) -> Any:
    """A metric's options as the suite has them.

    Raises:
        UserInputError: one is wrong.
    """
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
