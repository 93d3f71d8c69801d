"""From what the judges said to records and result rows: values an image, estimates, paired differences to the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.manifests import task_concepts
from conceptbench.core.metric import Edited, ErasureMetric, JudgeCard, Metric, Quantity, Scored
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.results import Difference, Estimate, ResultRow
from conceptbench.core.schemas import MetricSpec, Role, Suite, Task
from conceptbench.engine.images import ImageSpec
from conceptbench.engine.records import Record

ALL = "*"
NO_JUDGE = JudgeCard("", "features", "", "", "", "", {})
Heard = Mapping[str, Mapping[str, Mapping[str, NDArray[Any]]]]
"""judge -> image key -> what it said of the image."""


@dataclass(frozen=True)
class Measure:
    """A metric of images in a suite, with its judge's name."""

    metric: Metric
    judge: str


@dataclass(frozen=True)
class Measures:
    """What a suite measures.

    Attributes:
        images: metrics of images.
        erasures: metrics of an erasure as a whole.
        judges: name -> judge, each loaded once.
    """

    images: tuple[Measure, ...]
    erasures: tuple[ErasureMetric, ...]
    judges: Mapping[str, Any]


def load_measures(suite: Suite) -> Measures:
    """The suite's metrics and the judges that they ask.

    Raises:
        UserInputError: a metric has no judge of the role it needs, or an option is wrong.
    """
    judges: dict[str, Any] = {}
    images, erasures = [], []
    for spec in suite.metrics:
        kind: type[Quantity] = METRICS.load(spec.metric)
        metric = kind(_options(kind, spec), _card(kind, spec, judges))
        if isinstance(metric, ErasureMetric):
            erasures.append(metric)
        elif isinstance(metric, Metric):
            images.append(Measure(metric, spec.judge or ""))
    ids = {m.metric.id for m in images}
    for name in (suite.headline.erased, suite.headline.kept):
        if name not in ids:
            raise unknown_name("headline metric", name, ids)
    return Measures(tuple(images), tuple(erasures), judges)


def _card(kind: type[Quantity], spec: MetricSpec, judges: dict[str, Any]) -> JudgeCard:
    if not kind.role:
        if spec.judge is not None:
            raise UserInputError(f"metric {spec.metric!r} asks no judge, and the suite gives it {spec.judge!r}", "leave the judge out")
        return NO_JUDGE
    if spec.judge is None:
        raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}", f"judges: {', '.join(JUDGES.names())}")
    if spec.judge not in judges:
        judges[spec.judge] = JUDGES.load(spec.judge)()
    card: JudgeCard = judges[spec.judge].card
    if card.role != kind.role:
        raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}, and {spec.judge!r} is a {card.role}")
    return card


def _options(kind: type[Quantity], spec: MetricSpec) -> Any:
    try:
        return kind.Config(**spec.options)
    except ValueError as error:
        raise UserInputError(f"options of metric {spec.metric!r}: {error}") from error


@dataclass(frozen=True)
class Model:
    """A model to score: its row names and what the judges said of its images.

    Attributes:
        eraser, preset: row fields.
        key_of: image -> its key under this model.
        heard: judge -> image key -> what it said; a judge that compares with the base is missing for the base itself.
        extra: further row fields (hashes, cost).
        edited: the erasure's weights and cost, for metrics of erasures; None if it is not made.
        whole: whether it is an erasure, of which such metrics are asked; not for the base and for images without weights.
    """

    eraser: str
    preset: str
    key_of: Callable[[ImageSpec], str]
    heard: Heard
    extra: Mapping[str, Any]
    edited: Edited | None = None
    whole: bool = True


@dataclass(frozen=True)
class Values:
    """A metric's values on the images that it applies to.

    Attributes:
        of: one an image; None where there is none.
        heard: whether the judge was asked; if so, None is a failure, else the image is still to be made.
    """

    of: list[float | None]
    heard: list[bool]


@dataclass
class TaskScores:
    """All images of a task, and the values that models have on them.

    Attributes:
        suite, task, specs: what was asked.
        common: row fields of all models.
    """

    suite: Suite
    task: Task
    specs: Sequence[ImageSpec]
    measures: Measures
    common: Mapping[str, Any]
    _base: list[Values] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._concepts = task_concepts(self.suite, self.task)
        self._chosen = [[i for i, s in enumerate(self.specs) if measure.metric.applies(self._concepts[s.concept], s.role)] for measure in self.measures.images]

    def score(self, model: Model, *, is_base: bool, paired: bool = True) -> tuple[list[ResultRow], list[Record]]:
        """The rows and records of a model; the base comes first, because the others are compared with it.

        Args:
            model: what to score.
            is_base: whether it is the base.
            paired: whether its images have the base's conditions and noise; if not, nothing is compared image by image.
        """
        keys = [model.key_of(s) for s in self.specs]
        values = [self._values(m, chosen, keys, model) for m, chosen in zip(self.measures.images, self._chosen, strict=True)]
        if is_base:
            self._base = values
        rows = []
        for n, measure in enumerate(self.measures.images):
            if measure.metric.needs == "pairs" and (is_base or not paired):
                continue
            for role in ("target", "retained"):
                own = [(j, self.specs[i]) for j, i in enumerate(self._chosen[n]) if self.specs[i].role == role]
                for concept in [ALL, *dict.fromkeys(s.concept for _, s in own)] if own else []:
                    group = [(j, s) for j, s in own if concept in (ALL, s.concept)]
                    rows.append(self._row(measure, model, concept, group, values[n], self._base[n], paired and not is_base))
        if model.whole and not is_base:
            rows += [self._whole(metric, model) for metric in self.measures.erasures]
        return rows, self._records(model, keys, values, paired=paired, is_base=is_base)

    def _values(self, measure: Measure, chosen: Sequence[int], keys: Sequence[str], model: Model) -> Values:
        said = model.heard.get(measure.judge, {})
        values: list[float | None] = []
        for i in chosen:
            spec, heard = self.specs[i], said.get(keys[i])
            values.append(None if heard is None else measure.metric.value(Scored(self._concepts[spec.concept], spec.role, spec.prompt_id, heard)))
        return Values(values, [keys[i] in said for i in chosen])

    def _records(self, model: Model, keys: Sequence[str], values: Sequence[Values], *, paired: bool, is_base: bool) -> list[Record]:
        by_image: list[dict[str, float | None]] = [{} for _ in self.specs]
        for measure, chosen, own in zip(self.measures.images, self._chosen, values, strict=True):
            if measure.metric.needs == "pairs" and (is_base or not paired):
                continue
            for i, value, heard in zip(chosen, own.of, own.heard, strict=True):
                if heard:
                    by_image[i][measure.metric.protocol] = value
        return [
            Record(
                task=self.task.id,
                role=s.role,
                concept=s.concept,
                eraser=model.eraser,
                preset=model.preset,
                prompt_id=s.prompt_id,
                number=s.number,
                seed=s.seed if paired else -1,
                prompt=s.condition.text,
                image=key,
                values=found,
            )
            for s, key, found in zip(self.specs, keys, by_image, strict=True)
        ]

    def _row(
        self,
        measure: Measure,
        model: Model,
        concept: str,
        group: Sequence[tuple[int, ImageSpec]],
        values: Values,
        of_base: Values,
        compared: bool,
    ) -> ResultRow:
        metric, role = measure.metric, group[0][1].role
        estimate, base, delta = _estimate(metric, role, group, values), None, Difference(value=None)
        if metric.needs == "images":
            base = _estimate(metric, role, group, of_base).value
            if compared:
                pairs = [(values.of[j], of_base.of[j], s.prompt_id) for j, s in group]
                delta = Difference.of([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs], rate=metric.is_rate)
        return self._result(metric, model, role, concept, metric.better(role), estimate, base, delta)

    def _whole(self, metric: ErasureMetric, model: Model) -> ResultRow:
        value = None if model.edited is None else metric.measure(model.edited)
        estimate = Estimate(
            value=value,
            kind="none: one erasure" if value is not None else "",
            planned=1,
            scored=int(value is not None),
            failed=0,
            clusters=1,
            unit=metric.unit,
            better=metric.better(),
            reason="" if value is not None else "the erasure is not made" if model.edited is None else "not measured: the weights were made elsewhere",
        )
        return self._result(metric, model, "model", ALL, metric.better(), estimate, None, Difference(value=None))

    def _result(
        self, metric: Quantity, model: Model, role: Any, concept: str, better: str, estimate: Estimate, base: float | None, delta: Difference
    ) -> ResultRow:
        missing = estimate.scored < estimate.planned and (role != "model" or model.edited is None)
        status = "partial" if missing else str(self.common["status"])
        return ResultRow(
            suite=self.suite.name,
            suite_version=self.suite.version,
            task=self.task.id,
            role=role,
            concept=concept,
            eraser=model.eraser,
            preset=model.preset,
            metric=metric.id,
            protocol=metric.protocol,
            better=better,
            unit=metric.unit,
            value=estimate.value,
            ci_low=estimate.low,
            ci_high=estimate.high,
            ci_kind=estimate.kind,
            reason=estimate.reason,
            n_planned=estimate.planned,
            n_scored=estimate.scored,
            n_failed=estimate.failed,
            clusters=estimate.clusters,
            base_value=base,
            delta=delta.value,
            delta_low=delta.low,
            delta_high=delta.high,
            status=status,
            judge_sha256=metric.judge.sha256,
            **{k: v for k, v in self.common.items() if k != "status"},
            **model.extra,
        )


def _estimate(metric: Metric, role: Role, group: Sequence[tuple[int, ImageSpec]], values: Values) -> Estimate:
    """The estimate over the images of a group that were judged; the rest counts as planned only."""
    done = [(values.of[j], s.prompt_id) for j, s in group if values.heard[j]]
    return metric.estimate([v for v, _ in done], [c for _, c in done], len(group), role)
