"""The contract of probes: metrics that need the model itself, not only its images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.metric import Better, Quantity
from conceptbench.core.schemas import Concept, Role, Sampler
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import Load


@dataclass(frozen=True)
class ProbeRequest:
    """What a probe is about: one concept of one task.

    Attributes:
        concept, role: whom the row counts for.
        others: the other concepts of the task, e.g. for a chance level.
        conditions, prompt_ids, seeds: of the concept's images in the suite.
        sampler: of the suite.
        seed: of the suite, for draws of the probe's own.
        images: gives n images of a concept from the *base*, (n, H, W, 3) uint8, through the store.
        progress: call it with 1 for each unit of work that :meth:`Probe.work` counts.
    """

    concept: Concept
    role: Role
    others: tuple[Concept, ...]
    conditions: tuple[Condition, ...]
    prompt_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    sampler: Sampler
    seed: int
    images: Callable[[Concept, int], NDArray[np.uint8]]
    progress: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class Probed:
    """What a probe found. K units: inversion seeds, prompts.

    Attributes:
        values: part -> (K,) float values; the part ``""`` is the metric itself, others get rows of their own (``m_score-chance``).
            NaN is a unit that failed.
        clusters: K names; units of one name resemble each other. The same units in the same order for every model.
        arrays: what is worth looking at, kept in the store. The report draws ``curve`` (K, steps) as curves, and ``images``
            (S, H, W, 3) uint8, ``mean`` (S, h, w) and ``heads`` (S, heads, h, w) together as heat maps over images;
            ``images`` alone is shown as it is.
    """

    values: dict[str, NDArray[Any]]
    clusters: Sequence[str]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


class Probe(Quantity):
    """A quantity of a model, measured with the model at hand.

    Attributes:
        unit: of the values.
        parts: the parts of :attr:`Probed.values` besides ``""``, with their unit.
        spread_kind: what the units are, e.g. ``inversion seeds``: the standard deviation over them stands in the row.
    """

    role: ClassVar[str] = ""
    unit: ClassVar[str] = "score"
    parts: ClassVar[dict[str, str]] = {}
    spread_kind: ClassVar[str] = "units"

    @abstractmethod
    def better(self, role: Role) -> Better:
        """Which direction is good for concepts of this role."""

    @abstractmethod
    def applies(self, concept: Concept, role: Role) -> bool:
        """Whether the probe is made for a concept of this role."""

    def work(self) -> int:
        """How often ``progress`` is called for one model and concept."""
        return 1

    def load(self, sampler: Sampler) -> Load:
        """How much work one model and concept is, for ``plan``; nothing by default.

        Args:
            sampler: the suite's.
        """
        return Load()

    def prepare(self, base: Base, request: ProbeRequest) -> dict[str, NDArray[Any]]:
        """What must come from the unmodified base: embeddings, anchor images. Called before any erasure is applied."""
        return {}

    @abstractmethod
    def measure(self, base: Base, request: ProbeRequest, prepared: dict[str, NDArray[Any]]) -> Probed:
        """Measures the base with whatever erasure is applied to it; leaves it as it was.

        Args:
            base: the model.
            request: what it is about; the same for every model.
            prepared: what :meth:`prepare` gave.
        """
