"""The contracts of metrics. Pure: arrays in, values and estimates out; the networks are behind judges.

==================  ==============================================================================================================
kind                what it is
==================  ==============================================================================================================
`Metric`            one value an image, or an image and its partner; the engine averages, with an interval by prompt
`SetMetric`         one value of a set of images beside a reference set (FID, precision), or beside the other images (AUC)
`ErasureMetric`     one value of an erasure as a whole: weight change, cost (:mod:`conceptbench.core.whole_metric`)
`DerivedMetric`     made of other metrics' estimates: harmonic mean, normalised rates (there, too)
`Probe`             values of a model itself, with its weights at hand (:mod:`conceptbench.models.probe`)
==================  ==============================================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.judge import JudgeCard
from conceptbench.core.results import Difference, Estimate
from conceptbench.core.schemas import Concept, Role, Strict

Better = Literal["higher", "lower", "neither"]
NO_TEXTS: NDArray[np.float32] = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Asked:
    """What one image was asked to show.

    Attributes:
        concept, role: whom it counts for.
        prompt_id: the cluster.
        text: the prompt.
        content: the prompt without its style or artist; empty where the prompt set does not say.
    """

    concept: Concept
    role: Role
    prompt_id: str
    text: str = ""
    content: str = ""


@dataclass(frozen=True)
class Scored:
    """One image as a metric sees it.

    Attributes:
        asked: what it was asked to show.
        said: what the judge said of it: named arrays.
        cosines: (T,) of an image-text judge: the image with each of :meth:`Metric.texts`.
    """

    asked: Asked
    said: Mapping[str, NDArray[Any]]
    cosines: NDArray[np.float32] = field(default_factory=lambda: NO_TEXTS)

    @property
    def concept(self) -> Concept:
        """The concept that the image counts for."""
        return self.asked.concept


@dataclass(frozen=True)
class Sample:
    """Some images as a :class:`SetMetric` sees them.

    Attributes:
        values: (N, D) float: what :meth:`SetMetric.reading` took of each.
        clusters: N prompt ids; those of a reference set are all different.
    """

    values: NDArray[Any]
    clusters: Sequence[str]

    def __len__(self) -> int:
        return len(self.values)


class Quantity(ABC):
    """What all metrics share: a name, a protocol, a unit and a direction.

    Attributes:
        name: registered name.
        summary: one line.
        reference: the papers that define it or use it so.
        failure_modes: what it does not see, or sees wrongly; for ``conceptbench show metric``.
        role: the judge's role that it needs; empty if it asks none.
        unit: ``rate``, ``score``, ``seconds`` ...
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[str] = ""
    failure_modes: ClassVar[tuple[str, ...]] = ()
    role: ClassVar[str]
    unit: ClassVar[str] = "rate"

    class Config(Strict):
        """Options; a metric with options overrides it."""

    def __init__(self, config: Strict, judge: JudgeCard) -> None:
        self.config, self.judge = config, judge

    @property
    @abstractmethod
    def id(self) -> str:
        """The row's ``metric``, e.g. ``esr-1``."""

    @property
    @abstractmethod
    def arithmetic(self) -> str:
        """What the number is, in one word that pins every choice, e.g. ``top1-58way``."""

    @property
    def protocol(self) -> str:
        """``metric@arithmetic/judge``: numbers are comparable only if this is the same."""
        return f"{self.id}@{self.arithmetic}" + (f"/{self.judge.id}" if self.role else "")


class OfImages(Quantity):
    """What metrics of single images and of sets of images share."""

    @abstractmethod
    def better(self, role: Role) -> Better:
        """Which direction is good for concepts of this role."""

    @abstractmethod
    def applies(self, concept: Concept, role: Role) -> bool:
        """Whether the metric is defined for a concept of this role."""

    def texts(self, asked: Asked) -> tuple[str, ...]:
        """The texts that an image-text judge must compare the image with."""
        return ()


class Metric(OfImages):
    """A quantity of images: one value an image, averaged with an interval by prompt.

    Attributes:
        is_rate: whether values are 0 or 1.
        total: whether the row gives the sum over images (a count of detections) and not the mean.
        needs: ``images``: each by itself; ``pairs``: each with the base's image of the same condition and seed (the judge is a
            :class:`~conceptbench.core.judge.PairJudge`; the base itself has no row).
    """

    is_rate: ClassVar[bool] = True
    total: ClassVar[bool] = False
    needs: ClassVar[Literal["images", "pairs"]] = "images"

    def counts(self, image: Scored) -> bool:
        """Whether the image is in the denominator at all, e.g. because it has a face; the row says how many are not."""
        return True

    @abstractmethod
    def value(self, image: Scored) -> float | None:
        """The value of one image that counts, or None with the image counted as failed."""


class SetMetric(OfImages):
    """A quantity of a set of images beside a reference set.

    Attributes:
        each_concept: whether there is also a row for each concept, beside that over all concepts of a role.
    """

    each_concept: ClassVar[bool] = False

    @property
    @abstractmethod
    def beside(self) -> str:
        """The reference.

        ``base`` (its images for the same prompts and seeds), ``others`` (the model's images of other concepts in the task), the name
        of a registered reference set, or a folder of images.
        """

    @property
    def reference_size(self) -> int | None:
        """How many images of a registered or foreign reference set; None for all that a folder has."""
        return None

    @abstractmethod
    def reading(self, image: Scored, of: Concept | None) -> NDArray[Any]:
        """What the metric takes of one image: (D,) float.

        Args:
            image: the image.
            of: the concept that the row is about (None: all), which for an image among the ``others`` is not the image's own.
        """

    @abstractmethod
    def estimate(self, *, generated: Sample, real: Sample) -> Estimate:
        """The value with its interval, or the reason why there is none.

        Args:
            generated: the model's images; may be empty.
            real: the reference; may be empty.
        """

    def difference(self, *, generated: Sample, base: Sample, real: Sample) -> Difference:
        """The model's value minus the base's; ``generated`` and ``base`` are paired row by row (same prompt, same noise)."""
        value, other = self.estimate(generated=generated, real=real).value, self.estimate(generated=base, real=real).value
        return Difference(value=None if value is None or other is None else value - other)

    def per_image(self, *, generated: Sample, real: Sample) -> NDArray[Any] | None:
        """(N,) a value of each image for the records, where the quantity is a mean of such; else None."""
        return None
