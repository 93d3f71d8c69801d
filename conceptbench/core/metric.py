"""The contracts of metrics and judges. Pure: arrays in, records and estimates out; the networks are behind judges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept, Role, Strict

Better = Literal["higher", "lower", "neither"]
Outputs = dict[str, NDArray[Any]]
"""What a judge says of N images: named arrays whose first axis is N."""


@dataclass(frozen=True)
class JudgeCard:
    """What a judge is and where it comes from.

    Attributes:
        id: registered name.
        role: ``classifier``, ``detector``, ``image-text``, ``features``, or ``distance`` (of two images: a :class:`PairJudge`).
        sha256: of the weights.
        source, licence, preprocessing: for people.
        labels: head -> labels in the order of the outputs (classifiers and detectors).
        needs_text: whether the answer depends on the prompt.
    """

    id: str
    role: Literal["classifier", "detector", "image-text", "features", "distance"]
    sha256: str
    source: str
    licence: str
    preprocessing: str
    labels: Mapping[str, tuple[str, ...]]
    needs_text: bool = False


class Judge(Protocol):
    """A pretrained model that a metric asks. It runs once over an image, whoever asks."""

    card: JudgeCard

    def __call__(self, images: NDArray[np.uint8], texts: Sequence[str]) -> Outputs:
        """Judges images.

        Args:
            images: (N, H, W, 3) uint8 RGB in [0, 255].
            texts: N prompts; ignored by judges whose card does not need them.

        Returns:
            Arrays with first axis N: classifiers give probabilities (N, labels) by head, image-text models ``cosine`` (N,),
            feature extractors ``features`` (N, D), detectors ``detections`` (N, M, 6): score, label index, x0, y0, x1, y1,
            coordinates in [0, 1], unused rows with score 0, sorted by score.
        """
        ...


class PairJudge(Protocol):
    """A judge of role ``distance``: it compares an image with its partner, the base's image of the same condition and seed."""

    card: JudgeCard

    def __call__(self, images: NDArray[np.uint8], partners: NDArray[np.uint8]) -> Outputs:
        """Compares images.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            partners: (N, H, W, 3) uint8 RGB of the same size.

        Returns:
            ``distance`` (N,) float, not negative.
        """
        ...


@dataclass(frozen=True)
class Edited:
    """An erasure as an :class:`ErasureMetric` sees it.

    Attributes:
        before: ``component.parameter`` -> the base's value, for every parameter of the denoiser and of each changed component.
        after: the same names -> the erased value, for the parameters that the erasure names only; float32.
        cost: ``seconds``, ``peak_memory_mb``, ``network_evaluations``, ``size_bytes``; None where it was not measured (a
            checkpoint made elsewhere).
    """

    before: Mapping[str, NDArray[Any]]
    after: Mapping[str, NDArray[np.float32]]
    cost: Mapping[str, float | None]


@dataclass(frozen=True)
class Scored:
    """One image as a metric sees it: its concept and role, its prompt (the cluster) and what the judge said of it."""

    concept: Concept
    role: Role
    prompt_id: str
    said: Mapping[str, NDArray[Any]]


class Quantity(ABC):
    """What all metrics share: a name, a protocol, a unit and a direction.

    Attributes:
        name: registered name.
        summary: one line.
        role: the judge's role that it needs; empty if it asks none.
        unit: ``rate``, ``score``, ``seconds`` ...
    """

    name: ClassVar[str]
    summary: ClassVar[str]
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


class Metric(Quantity):
    """A quantity of images: one value an image, averaged with an interval by prompt.

    Attributes:
        is_rate: whether values are 0 or 1.
        needs: ``images``: each by itself; ``pairs``: each with the base's image of the same condition and seed (the judge is a
            :class:`PairJudge`; the base itself has no row).
    """

    is_rate: ClassVar[bool] = True
    needs: ClassVar[Literal["images", "pairs"]] = "images"

    @abstractmethod
    def better(self, role: Role) -> Better:
        """Which direction is good for concepts of this role."""

    @abstractmethod
    def applies(self, concept: Concept, role: Role) -> bool:
        """Whether the metric is defined for a concept of this role."""

    @abstractmethod
    def value(self, image: Scored) -> float | None:
        """The value of one image, or None with the image counted as failed."""

    def estimate(self, values: Sequence[float | None], clusters: Sequence[str], planned: int, role: Role) -> Estimate:
        """The estimate of a group of images: mean with an interval by prompt."""
        return Estimate.of(values, clusters, planned=planned, rate=self.is_rate, unit=self.unit, better=self.better(role))


class ErasureMetric(Quantity):
    """A quantity of an erasure as a whole: weight change, cost. Its rows have role ``model`` and concept ``*``.

    Attributes:
        unit: where it depends on the options, ``__init__`` sets it.
        timed: whether a rerun may give another value (seconds, memory); such rows are not part of canonical results. May
            depend on the options, too: ask the instance.
    """

    role: ClassVar[str] = ""
    unit: str = "depends on the options"  # type: ignore[misc] # other metrics have one for the class
    timed: bool = False

    @abstractmethod
    def better(self) -> Better:
        """Which direction is good."""

    @abstractmethod
    def measure(self, erasure: Edited) -> float | None:
        """The value, or None where it is undefined (nothing was measured)."""
