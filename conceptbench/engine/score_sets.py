"""Rows of metrics of sets of images: the model's images beside the base's, beside its own other images, or beside a reference set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.metric import Asked, Sample, Scored, SetMetric
from conceptbench.core.results import Difference, ResultRow, RowRole
from conceptbench.core.schemas import Concept
from conceptbench.engine.groups import ALL, Group, groups_of
from conceptbench.engine.images import ImageSpec
from conceptbench.engine.measures import Measure
from conceptbench.engine.references import References
from conceptbench.engine.rows import NOTHING, RowMaker
from conceptbench.engine.seen import Looker, Model

Keyed = tuple[Model, Mapping[int, str]]
"""A model and its image keys by the identity of the image's spec."""


@dataclass
class SetScores:
    """One metric of sets on one task.

    Attributes:
        measure: the metric and its judge.
        chosen: the images that its rows are about.
        pool: the images that it applies to, those of concepts that it is not limited to included: the ``others``.
        looker: shows images to it.
        maker: of rows.
        references: features of reference sets.
        roles: concept -> role of its rows.
    """

    measure: Measure[SetMetric]
    chosen: Sequence[ImageSpec]
    pool: Sequence[ImageSpec]
    looker: Looker
    maker: RowMaker
    references: References | None
    roles: Mapping[str, RowRole]

    def __post_init__(self) -> None:
        self.metric: SetMetric = self.measure.metric
        self.looker.learn(self.metric, self.measure.judge, self.pool)
        self.protocol = self._protocol()
        self._base_values: dict[tuple[int, ...], float | None] = {}
        self._references: dict[tuple[str, str], Sample] = {}

    def _protocol(self) -> str:
        """The metric's protocol; of a folder of images the name says too little, so its content is part of it."""
        if self.references is None or self.metric.beside in ("base", "others") or self.references.folder(self.metric.beside) is None:
            return self.metric.protocol
        head, _, judge = self.metric.protocol.rpartition("/")
        return f"{head}~{self.references.digest(self.metric.beside, self.metric.reference_size, ())[:8]}/{judge}"

    def rows(self, model: Keyed, base: Keyed, *, compared: bool) -> tuple[list[ResultRow], dict[int, float]]:
        """The metric's rows, and its value of single images where it has one.

        Args:
            model: whose.
            base: the base.
            compared: whether the images are paired with the base's; False for the base itself.
        """
        found: list[ResultRow] = []
        per_image: dict[int, float] = {}
        if self.metric.beside == "base" and model[0] is base[0]:
            return found, per_image  # the base beside itself
        for group in groups_of(self.chosen, self.roles):
            whole = group.concept == ALL
            if self.metric.beside != "others" if whole else self.metric.each_concept:
                found.append(self._row(model, base, group, compared, per_image if whole else {}))
        return found, per_image

    def _row(self, model: Keyed, base: Keyed, group: Group, compared: bool, per_image: dict[int, float]) -> ResultRow:
        own = [s for _, s in group.images]
        concept = None if group.concept == ALL else self.looker.asked(own[0]).concept
        there = self._heard(model, own)
        generated, real = self._sample(model, there, concept), self._real(model, base, there, own, concept)
        value = self.metric.estimate(generated=generated, real=real)
        counts = {"planned": len(own), "scored": value.scored or (len(there) if value.value is not None else 0)}
        estimate = value.model_copy(
            update={
                **counts,
                "clusters": value.clusters or len(set(generated.clusters)),
                "unit": self.metric.unit,
                "better": self.metric.better(group.asked),
            }
        )
        for spec, number in zip(there, self._per_image(generated, real), strict=False):
            per_image[id(spec)] = number
        of_base, delta = self._against_base(model, base, own, concept, compared, estimate.value)
        digest = "" if self.metric.beside in ("base", "others") else self._reference(own)[1]
        partial = len(there) < len(own) or len(real) < self._wanted(there, own, len(real))
        named = {"protocol": self.protocol, "reference": digest}
        return self.maker.row(self.metric, model[0], group.role, group.concept, estimate, base=of_base, delta=delta, partial=partial, **named)

    def _against_base(
        self, model: Keyed, base: Keyed, own: Sequence[ImageSpec], concept: Concept | None, compared: bool, value: float | None
    ) -> tuple[float | None, Difference]:
        """The base's value, over the images that both have where they are compared, and the difference of the model's ``value`` to it."""
        if self.metric.beside == "base":
            return None, NOTHING
        of_base, there = self._heard(base, own), self._heard(model, own)
        both = of_base
        if compared:
            known = {id(s) for s in of_base}
            both = [s for s in there if id(s) in known]
        base_value = self._base_value(base, both, own, concept)
        if not compared or not both:
            return base_value, NOTHING
        if len(both) == len(there) and (self.metric.beside == "others" or type(self.metric).difference is SetMetric.difference):
            # each beside its own reference, or a plain difference of values: both are known
            return base_value, Difference(value=None if value is None or base_value is None else value - base_value)
        generated, real = self._sample(model, both, concept), self._real(model, base, both, own, concept)
        if self.metric.beside == "others":
            mine = self.metric.estimate(generated=generated, real=real).value
            return base_value, Difference(value=None if mine is None or base_value is None else mine - base_value)
        return base_value, self.metric.difference(generated=generated, base=self._sample(base, both, concept), real=real)

    def _base_value(self, base: Keyed, specs: Sequence[ImageSpec], own: Sequence[ImageSpec], concept: Concept | None) -> float | None:
        """The base's value on some images; it is the same for every model that has them."""
        which = (id(concept), *(id(s) for s in specs))
        if which not in self._base_values:
            real = self._real(base, base, specs, own, concept)
            self._base_values[which] = self.metric.estimate(generated=self._sample(base, specs, concept), real=real).value
        return self._base_values[which]

    def _heard(self, model: Keyed, specs: Sequence[ImageSpec]) -> list[ImageSpec]:
        said = model[0].heard.get(self.measure.judge, {})
        return [s for s in specs if model[1][id(s)] in said]

    def _sample(self, model: Keyed, specs: Sequence[ImageSpec], concept: Concept | None) -> Sample:
        said = model[0].heard.get(self.measure.judge, {})
        readings = [self.metric.reading(self.looker.scored(self.metric, self.measure.judge, s, said[model[1][id(s)]]), concept) for s in specs]
        return Sample(np.stack(readings) if readings else np.zeros((0, 1)), [s.prompt_id for s in specs])

    def _others(self, own: Sequence[ImageSpec]) -> list[ImageSpec]:
        wanted = {id(s) for s in own}
        return [s for s in self.pool if id(s) not in wanted]

    def _wanted(self, there: Sequence[ImageSpec], own: Sequence[ImageSpec], real: int) -> int:
        """How many images the reference of a row has when everything is made; a set of its own is always whole."""
        return {"base": len(there), "others": len(self._others(own))}.get(self.metric.beside, real)

    def _real(self, model: Keyed, base: Keyed, there: Sequence[ImageSpec], own: Sequence[ImageSpec], concept: Concept | None) -> Sample:
        """The reference of a row: the partners of the images that are there, the model's other images, or a set of its own."""
        if self.metric.beside == "base":
            return self._sample(base, self._heard(base, there), concept)
        if self.metric.beside == "others":
            return self._sample(model, self._heard(model, self._others(own)), concept)
        said, digest = self._reference(own)
        place = digest, concept.name if concept else ALL
        if place not in self._references:
            first = self.looker.asked(own[0]).concept
            n = len(next(iter(said.values())))
            readings = [self.metric.reading(_of_reference(first, {k: v[i] for k, v in said.items()}), concept) for i in range(n)]
            self._references[place] = Sample(np.stack(readings) if readings else np.zeros((0, 1)), [f"reference-{i}" for i in range(n)])
        return self._references[place]

    def _reference(self, own: Sequence[ImageSpec]) -> tuple[dict[str, NDArray[Any]], str]:
        assert self.references is not None
        concepts = list({s.concept: self.looker.asked(s).concept for s in own}.values())
        return self.references.said(self.measure.judge, self.metric.beside, self.metric.reference_size, concepts)

    def _per_image(self, generated: Sample, real: Sample) -> Sequence[float]:
        found = self.metric.per_image(generated=generated, real=real) if len(generated) and len(real) else None
        return [] if found is None else [float(v) for v in found]


def _of_reference(concept: Concept, said: Mapping[str, NDArray[Any]]) -> Scored:
    """An image of a reference set; it was not made for any prompt."""
    return Scored(Asked(concept, "retained", ""), said)
