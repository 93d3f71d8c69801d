"""From what the judges said to records and result rows: values an image, estimates, paired differences to the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conceptbench.core.manifests import task_concepts
from conceptbench.core.metric import Metric, SetMetric
from conceptbench.core.results import Difference, Estimate, ResultRow
from conceptbench.core.schemas import Suite, Task
from conceptbench.core.statistics import wilson
from conceptbench.core.whole_metric import ErasureMetric
from conceptbench.engine.groups import ALL, Group, groups_of, row_roles
from conceptbench.engine.images import ImageSpec
from conceptbench.engine.measures import Measure, Measures, in_suite_order
from conceptbench.engine.records import Record
from conceptbench.engine.references import References
from conceptbench.engine.rows import NOTHING, RowMaker
from conceptbench.engine.score_derived import derived_rows
from conceptbench.engine.score_probes import probe_rows
from conceptbench.engine.score_sets import SetScores
from conceptbench.engine.seen import Looker, Model, TextBook


@dataclass(frozen=True)
class Values:
    """A metric's values on the images that it applies to.

    Attributes:
        of: one an image; None where there is none.
        heard: whether the judge was asked; if so, None is a failure, else the image is still to be made.
        counted: whether the image is in the denominator; False only for images that were heard.
    """

    of: list[float | None]
    heard: list[bool]
    counted: list[bool]


@dataclass
class TaskScores:
    """All images of a task, and the values that models have on them.

    Attributes:
        suite, task, specs, measures: what was asked.
        common: row fields of all models.
        book: embeddings of texts.
        references: features of reference sets; None where none is asked for.
        values: (eraser, preset) -> the metrics' values, in the order of ``measures.images``.
        models: (eraser, preset) -> whose they are.
    """

    suite: Suite
    task: Task
    specs: list[ImageSpec]  # one object an image: they are told apart by identity
    measures: Measures
    common: Mapping[str, Any]
    book: TextBook
    references: References | None = None
    values: dict[tuple[str, str], list[Values]] = field(default_factory=dict)
    models: dict[tuple[str, str], Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.concepts = task_concepts(self.suite, self.task)
        self.roles = row_roles(self.task)
        self.looker = Looker(self.measures, self.concepts, self.book)
        self.maker = RowMaker(self.suite, self.task.id, self.common)
        self.chosen = [self._applicable(m) for m in self.measures.images]
        self._base: Model | None = None
        self._base_keys: dict[int, str] = {}
        self._base_rows: list[ResultRow] = []
        self._sets = [
            SetScores(m, self._applicable(m), self._applicable(replace(m, only=())), self.looker, self.maker, self.references, self.roles)
            for m in self.measures.sets
        ]
        for measure, own in zip(self.measures.images, self.chosen, strict=True):
            self.looker.learn(measure.metric, measure.judge, own)

    def _applicable(self, measure: Measure[Metric] | Measure[SetMetric]) -> list[ImageSpec]:
        return [s for s in self.specs if measure.asks_about(self.concepts[s.concept], s.role)]

    def score(self, model: Model, *, is_base: bool, paired: bool = True) -> tuple[list[ResultRow], list[Record]]:
        """The rows and records of a model; the base comes first, because the others are compared with it.

        Args:
            model: what to score.
            is_base: whether it is the base.
            paired: whether its images have the base's conditions and noise; if not, nothing is compared image by image.
        """
        keys = {id(s): model.key_of(s) for s in self.specs}
        values = [self.values_of(m, own, model, keys) for m, own in zip(self.measures.images, self.chosen, strict=True)]
        self.values[model.eraser, model.preset], self.models[model.eraser, model.preset] = values, model
        if is_base:
            self._base, self._base_keys = model, keys
        assert self._base is not None, "the base is scored first"
        of_base = self.values[self._base.eraser, self._base.preset]
        rows: list[ResultRow] = []
        for measure, own, mine, base in zip(self.measures.images, self.chosen, values, of_base, strict=True):
            if measure.metric.needs == "images" or not (is_base or not paired):
                rows += [self.image_row(measure.metric, model, g, mine, base, paired and not is_base) for g in groups_of(own, self.roles)]
        per_image = []
        for scores in self._sets:
            made, of_each = scores.rows((model, keys), (self._base, self._base_keys), compared=paired and not is_base)
            rows += made
            per_image.append(of_each)
        if model.whole and not is_base:
            rows += [self._whole(metric, model) for metric in self.measures.erasures]
        rows += probe_rows(self.measures.probes, self.maker, self.task, self.concepts, model, None if is_base else self._base)
        rows += derived_rows(self.measures, self.maker, model, rows, None if is_base else self._base_rows, compared=paired)
        if is_base:
            self._base_rows = rows
        return in_suite_order(rows, self.measures.order), self._records(model, keys, values, per_image, pairs=paired and not is_base, paired=paired)

    def values_of(self, measure: Measure[Metric], chosen: Sequence[ImageSpec], model: Model, keys: Mapping[int, str]) -> Values:
        """A metric's values on a model's images.

        Args:
            measure: the metric and its judge.
            chosen: the images that it applies to.
            model: whose.
            keys: of its images, by the identity of the image's spec.
        """
        said, metric = model.heard.get(measure.judge, {}), measure.metric
        values: list[float | None] = []
        heard, counted = [], []
        for spec in chosen:
            own = said.get(keys[id(spec)])
            image = None if own is None else self.looker.scored(metric, measure.judge, spec, own)
            heard.append(image is not None)
            counted.append(image is None or metric.counts(image))
            values.append(metric.value(image) if image is not None and counted[-1] else None)
        return Values(values, heard, counted)

    def _records(
        self,
        model: Model,
        keys: Mapping[int, str],
        values: Sequence[Values],
        per_image: Sequence[Mapping[int, float]],
        *,
        pairs: bool,
        paired: bool,
    ) -> list[Record]:
        by_image: dict[int, dict[str, float | None]] = {id(s): {} for s in self.specs}
        for measure, chosen, own in zip(self.measures.images, self.chosen, values, strict=True):
            if measure.metric.needs == "pairs" and not pairs:
                continue
            for spec, value, heard, counted in zip(chosen, own.of, own.heard, own.counted, strict=True):
                if heard and counted:
                    by_image[id(spec)][measure.metric.protocol] = value
        for scores, of_each in zip(self._sets, per_image, strict=True):
            for which, number in of_each.items():
                by_image[which][scores.protocol] = number
        return [
            Record(
                task=self.task.id,
                role=self.roles[s.concept],
                concept=s.concept,
                eraser=model.eraser,
                preset=model.preset,
                prompt_id=s.prompt_id,
                number=s.number,
                seed=s.seed if paired else -1,
                prompt=s.condition.text,
                image=keys[id(s)],
                values=by_image[id(s)],
            )
            for s in self.specs
        ]

    def image_row(self, metric: Metric, model: Model, group: Group, values: Values, of_base: Values, compared: bool) -> ResultRow:
        """The row of a metric of images on a group of them."""
        estimate, base, delta = estimate_of(metric, group, values), None, NOTHING
        if metric.needs == "images":
            base = value_of(metric, group, of_base)
            if compared:
                delta = difference_of(metric, group, values, of_base)
        partial = any(not values.heard[j] for j, _ in group.images) or estimate.failed > 0
        return self.maker.row(metric, model, group.role, group.concept, estimate, base=base, delta=delta, partial=partial)

    def _whole(self, metric: ErasureMetric, model: Model) -> ResultRow:
        value = None if model.edited is None else metric.measure(model.edited)
        estimate = Estimate(
            value=value,
            kind="none: one erasure" if value is not None else "",
            planned=1,
            scored=int(value is not None),
            clusters=1,
            unit=metric.unit,
            better=metric.better(),
            reason="" if value is not None else "the erasure is not made" if model.edited is None else metric.missing,
        )
        return self.maker.row(metric, model, "model", ALL, estimate, partial=model.edited is None)


def estimate_of(metric: Metric, group: Group, values: Values) -> Estimate:
    """The estimate over the images of a group that were judged and count; the rest is planned, and the row says how many do not count."""
    done = [(values.of[j], s.prompt_id) for j, s in group.images if values.heard[j] and values.counted[j]]
    outside = sum(not values.counted[j] for j, _ in group.images)
    estimate = Estimate.of(
        [v for v, _ in done],
        [c for _, c in done],
        planned=len(group.images),
        rate=metric.is_rate,
        unit=metric.unit,
        better=metric.better(group.asked),
    )
    if outside:
        note = f"{outside} of {len(group.images)} images do not count"
        estimate = estimate.model_copy(update={"reason": f"{estimate.reason}; {note}" if estimate.reason else note})
    return summed(estimate) if metric.total else estimate


def value_of(metric: Metric, group: Group, values: Values) -> float | None:
    """The value that :func:`estimate_of` gives, without its interval."""
    numbers = [v for j, _ in group.images if values.heard[j] and values.counted[j] and (v := values.of[j]) is not None]
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    return mean * len(numbers) if metric.total else mean


def summed(estimate: Estimate) -> Estimate:
    """The sum over the scored images instead of their mean, with its interval; counts are not negative.

    Where all images have the same count, the interval says how many prompts with another one could have been missed (Wilson).
    """
    n, low, high, kind = estimate.scored, estimate.low, estimate.high, estimate.kind
    if estimate.value is None:
        return estimate
    if low is not None and high is not None and low == high:
        room = wilson(0, estimate.clusters)[1]
        low, high, kind = low - room, high + room, "wilson: all prompts alike"
    limits = {"low": None if low is None else max(0.0, low * n), "high": None if high is None else high * n, "kind": kind}
    return estimate.model_copy(update={"value": estimate.value * n, **limits})


def difference_of(metric: Metric, group: Group, values: Values, of_base: Values) -> Difference:
    """Model minus base over the images that both have; of sums if the metric is one."""
    pairs = [(values.of[j], of_base.of[j], s.prompt_id) for j, s in group.images]
    delta = Difference.of([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs], rate=metric.is_rate)
    if not metric.total or delta.value is None:
        return delta
    n = sum(a is not None and b is not None for a, b, _ in pairs)
    return Difference(value=delta.value * n, low=None if delta.low is None else delta.low * n, high=None if delta.high is None else delta.high * n)
