"""FID, KID, precision and recall: a model's images as a set beside a reference set, which is part of the protocol.

All four compare what is in the pictures at large, not whether a picture shows its prompt. For retained concepts near is good. For erased
ones no direction is: the reference shows the concept, so that an erased model ought to be far from it, and noise is far, too. Read a
target's row beside ``nothing``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from conceptbench.core.feature_sets import Features, UndefinedError, blocks, covered, fid, kid, realistic, t_interval
from conceptbench.core.metric import Better, Sample, Scored, SetMetric
from conceptbench.core.results import Difference, Estimate
from conceptbench.core.schemas import Concept, Role, Strict

LEAST_IN_BLOCK = 4
EXCHANGED = "Selective Amnesia's table 1 has precision and recall exchanged"


class _Beside(SetMetric):
    """What the four share: features of a judge, and a reference that the options name."""

    role: ClassVar[str] = "features"
    unit: ClassVar[str] = "distance"
    good: ClassVar[Better] = "lower"

    class Config(Strict):
        """Options.

        Attributes:
            beside: ``base`` (its images for the same prompts and noise), a registered reference set, or a folder of images.
            n: images of the reference set; None for all of a folder. The base has as many as the model.
        """

        beside: str = Field(default="base", min_length=1)
        n: int | None = Field(default=None, ge=2)

        @model_validator(mode="after")
        def _one_reference(self) -> _Beside.Config:
            if self.beside == "others":
                raise ValueError("beside: the model's images of other concepts are no reference; take `base`, a reference set or a folder")
            if self.beside == "base" and self.n is not None:
                raise ValueError("n is the size of a reference set, and the base has as many images as the model; say which set with `beside`")
            return self

    config: _Beside.Config

    @property
    def id(self) -> str:
        """The metric's name."""
        return self.name

    @property
    @abstractmethod
    def formula(self) -> str:
        """The protocol's first part: what is computed, without the reference."""

    @property
    def arithmetic(self) -> str:
        """``frechet-beside-mini-drawings-480``: the formula, the reference (of a folder the name alone) and its size."""
        if self.beside == "base":
            return f"{self.formula}-beside-base"
        name = re.sub(r"[^a-z0-9._-]+", "-", Path(self.beside).name.lower())
        return f"{self.formula}-beside-{name}-{self.config.n or 'all'}"

    @property
    def beside(self) -> str:
        """The option."""
        return self.config.beside

    @property
    def reference_size(self) -> int | None:
        """The option ``n``."""
        return self.config.n

    def better(self, role: Role) -> Better:
        """Nearer for what is kept; neither for what is erased, because the reference shows it."""
        return self.good if role == "retained" else "neither"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always."""
        return True

    def reading(self, image: Scored, of: Concept | None) -> NDArray[Any]:
        """The judge's features."""
        return np.asarray(image.said["features"])

    def estimate(self, *, generated: Sample, real: Sample) -> Estimate:
        """The value with its interval, or the reason why there is none; counts are of generated images and their prompts."""
        counts = {"planned": len(generated), "scored": len(generated), "clusters": len(set(generated.clusters)), "unit": self.unit}
        try:
            return self._estimate(generated, real).model_copy(update=counts)
        except UndefinedError as error:
            return Estimate(value=None, reason=str(error), **counts)

    @abstractmethod
    def _estimate(self, generated: Sample, real: Sample) -> Estimate:
        """The same without counts; raises UndefinedError where there is no value."""


def _dealt(sample: Sample, count: int) -> list[Features]:
    return [sample.values[rows] for rows in blocks(sample.clusters, count)]


def _smallest(*sides: list[Features]) -> int:
    return min(len(block) for side in sides for block in side)


class FID(_Beside):
    """The Fréchet distance of the two sets' features, taken as normally distributed (Heusel et al. 2017)."""

    name, summary = "fid", "Fréchet distance of the images' features to a reference set's (FID)"
    reference: ClassVar[str] = "Heusel et al. 2017; Parmar et al. 2022 (resizing); KPOP table 3, Selective Amnesia table 1, MACE, SPM"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "biased upward, the more the fewer the images: never compare values of different numbers of images, and below 10 000 none as absolute",
        "changes with the resizing, the network's weights and the reference set: five pipelines are in use",
        "blind to which image belongs to which prompt",
    )

    class Config(_Beside.Config):
        """Options: the reference, and ``splits``, over how many disjoint parts the spread is taken."""

        splits: int = Field(default=4, ge=2)

    config: FID.Config

    @property
    def formula(self) -> str:
        """``frechet``."""
        return "frechet"

    def _estimate(self, generated: Sample, real: Sample) -> Estimate:
        value, splits = fid(real=real.values, generated=generated.values), self.config.splits
        mine, theirs = _dealt(generated, splits), _dealt(real, splits)
        spread = None
        if _smallest(mine, theirs) >= 2:
            spread = float(np.std([fid(real=b, generated=a) for a, b in zip(mine, theirs, strict=True)]))
        images, features = min(len(generated), len(real)), generated.values.shape[1]
        return Estimate(
            value=value,
            kind="none: biased in the number of images",
            reason=f"{images} images for {features} features: most of the value may be bias" if images <= features else "",
            spread=spread,
            spread_kind="" if spread is None else f"{splits} disjoint splits",
        )


class KID(_Beside):
    """The squared maximum mean discrepancy of the two sets' features under a cubic kernel (Binkowski et al. 2018).

    The interval is by blocks: prompts and reference images are dealt to disjoint blocks, and the value gets Student's t with the
    standard error of the blocks' values. It is wide where the distance is near 0; the truth was inside in 95 to 100 % of simulations.
    """

    name, summary = "kid", "kernel distance of the images' features to a reference set's (KID)"
    reference: ClassVar[str] = "Binkowski et al. 2018; Gretton et al. 2012 (estimators); Concept Ablation"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "unbiased, so that a good model may be below 0",
        "for independent images: of sets with the same number of images of each concept it is slightly too low (0.002 on mini)",
        "implementations print the mean over random overlapping subsets, whose spread is no standard error",
        "blind to which image belongs to which prompt",
    )

    class Config(_Beside.Config):
        """Options.

        Attributes:
            beside, n: the reference.
            blocks: how many the interval is made of.
            pairs: beside ``base``: whether an image's own partner is left out, without which equal sets are below 0.
        """

        blocks: int = Field(default=5, ge=2)
        pairs: bool = True

    config: KID.Config

    @property
    def formula(self) -> str:
        """``poly3``, or ``poly3-pairs`` where partners are left out."""
        return "poly3-pairs" if self.beside == "base" and self.config.pairs else "poly3"

    def _paired(self, generated: Sample, real: Sample) -> bool:
        return self.formula == "poly3-pairs" and list(generated.clusters) == list(real.clusters)

    def _of_blocks(self, generated: Sample, real: Sample) -> list[float]:
        """The value of each block; empty if they are too small."""
        mine, theirs = _dealt(generated, self.config.blocks), _dealt(real, self.config.blocks)
        if _smallest(mine, theirs) < LEAST_IN_BLOCK:
            return []
        paired = self._paired(generated, real)
        return [kid(real=b, generated=a, paired=paired) for a, b in zip(mine, theirs, strict=True)]

    def _estimate(self, generated: Sample, real: Sample) -> Estimate:
        paired = self._paired(generated, real)
        if self.formula == "poly3-pairs" and not paired:
            raise UndefinedError(f"{len(generated)} images and {len(real)} of the base are not pairs; the option `pairs: false` compares them as they are")
        value, parts = kid(real=real.values, generated=generated.values, paired=paired), self._of_blocks(generated, real)
        if not parts:
            return Estimate(value=value, kind=f"none: {len(generated)} and {len(real)} images are too few for {self.config.blocks} blocks")
        low, high = t_interval(value, parts)
        name = f"{len(parts)} disjoint blocks"
        return Estimate(value=value, low=low, high=high, kind=f"t over {name}", spread=float(np.std(parts)), spread_kind=name)

    def difference(self, *, generated: Sample, base: Sample, real: Sample) -> Difference:
        """The model's value minus the base's, with the interval of the differences block by block."""
        value = super().difference(generated=generated, base=base, real=real).value
        if value is None or not (mine := self._of_blocks(generated, real)):
            return Difference(value=value)
        other = self._of_blocks(base, real)
        low, high = t_interval(value, [a - b for a, b in zip(mine, other, strict=True)])
        return Difference(value=value, low=low, high=high)


class _Share(_Beside):
    """A share of the images of one set: those inside the manifold of the other, which is taken as fixed."""

    reference: ClassVar[str] = "Kynkäänniemi et al. 2019, eq. 1 and 2; Selective Amnesia table 1"
    unit: ClassVar[str] = "rate"
    good: ClassVar[Better] = "higher"

    class Config(_Beside.Config):
        """Options: the reference, and ``k``, to which nearest neighbour a ball of the manifold reaches."""

        k: int = Field(default=3, ge=1)

    config: _Share.Config

    @property
    def formula(self) -> str:
        """``k3``."""
        return f"k{self.config.k}"

    @abstractmethod
    def _inside(self, generated: Sample, real: Sample) -> tuple[list[float], Sequence[str]]:
        """1 or 0 for each image of the set that is counted, and the images' clusters."""

    def _estimate(self, generated: Sample, real: Sample) -> Estimate:
        values, clusters = self._inside(generated, real)
        return Estimate.of(values, clusters, planned=len(values), rate=True, unit=self.unit, better="")

    def difference(self, *, generated: Sample, base: Sample, real: Sample) -> Difference:
        """The model's share minus the base's, paired image by image of the set that is counted."""
        try:
            values, clusters = self._inside(generated, real)
            return Difference.of(values, self._inside(base, real)[0], clusters, rate=True)
        except UndefinedError:
            return Difference(value=None)


class Precision(_Share):
    """Realism: the share of generated images inside the manifold of the real ones."""

    name, summary = "precision", "share of images inside the manifold of a reference set (realism)"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "an outlier in a small reference has a ball that swallows much, noise too",
        "depends on the size of the reference set and on its variety",
        EXCHANGED,
    )

    def _inside(self, generated: Sample, real: Sample) -> tuple[list[float], Sequence[str]]:
        inside = realistic(real=real.values, generated=generated.values, k=self.config.k)
        return [float(v) for v in inside], generated.clusters

    def per_image(self, *, generated: Sample, real: Sample) -> NDArray[Any] | None:
        """(N,) 1 for an image inside, else 0; None if that is undefined."""
        try:
            return np.asarray(self._inside(generated, real)[0])
        except UndefinedError:
            return None


class Recall(_Share):
    """Coverage: the share of real images inside the manifold of the generated ones."""

    name, summary = "recall", "share of a reference set inside the manifold of the images (variety)"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "an outlier among the images has a ball that swallows much of the reference: noise beside good images raises it",
        "depends on the number of images: never compare values of different numbers",
        EXCHANGED,
    )

    def _inside(self, generated: Sample, real: Sample) -> tuple[list[float], Sequence[str]]:
        inside = covered(real=real.values, generated=generated.values, k=self.config.k)
        return [float(v) for v in inside], real.clusters

    def _estimate(self, generated: Sample, real: Sample) -> Estimate:
        """The interval is one over reference images."""
        found = super()._estimate(generated, real)
        return found if found.low is None else found.model_copy(update={"kind": f"{found.kind} over {len(real)} reference images, the others fixed"})
