"""The contracts of metrics that are not about single images: of an erasure as a whole, and of other metrics' estimates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.metric import Better, Quantity
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Role


@dataclass(frozen=True)
class Edited:
    """An erasure as an :class:`ErasureMetric` sees it.

    Attributes:
        before: ``component.parameter`` -> the base's value, for every parameter of the denoiser and of each changed component.
        after: the same names -> the erased value, for the parameters that the erasure names only; float32.
        cost: ``seconds``, ``peak_memory_mb``, ``network_evaluations``, ``size_bytes``; None where it was not measured (a
            checkpoint made elsewhere).
        curve: points of its training in order, each with ``step``, ``loss`` and what else was looked at; empty where nothing was
            trained here.
    """

    before: Mapping[str, NDArray[Any]]
    after: Mapping[str, NDArray[np.float32]]
    cost: Mapping[str, float | None]
    curve: Sequence[Mapping[str, float | None]] = ()


class ErasureMetric(Quantity):
    """A quantity of an erasure as a whole: weight change, cost. Its rows have role ``model`` and concept ``*``.

    Attributes:
        unit: where it depends on the options, ``__init__`` sets it.
        timed: whether a rerun may give another value (seconds, memory); such rows are not part of canonical results. May
            depend on the options, too: ask the instance.
        watched: whether it reads what the suite's ``watch`` looks at; its judge must then be the one that watches.
        missing: why it has no value, where :meth:`measure` has none.
    """

    role: ClassVar[str] = ""
    unit: str = "depends on the options"  # type: ignore[misc] # other metrics have one for the class
    timed: bool = False
    watched: ClassVar[bool] = False
    missing: ClassVar[str] = "not measured: the weights were made elsewhere"

    @abstractmethod
    def better(self) -> Better:
        """Which direction is good."""

    @abstractmethod
    def measure(self, erasure: Edited) -> float | None:
        """The value, or None where it is undefined (nothing was measured)."""


class Estimates(Protocol):
    """The estimates of one model on one task, as a :class:`DerivedMetric` sees them."""

    def of(self, metric: str, role: Role, concept: str = "*", *, base: bool = False) -> Estimate:
        """A metric's estimate.

        Args:
            metric: its id in the suite, e.g. ``acc-1``.
            role: target or retained.
            concept: name, or ``*`` for all of the role.
            base: the base's estimate on the same images instead of the model's.

        Raises:
            UserInputError: the suite has no such metric, or it has no row of that role and concept.
        """
        ...

    def concepts(self, metric: str, role: Role) -> list[str]:
        """The concepts of a role that the metric applies to, in the task's order; may be empty."""
        ...


class DerivedMetric(Quantity):
    """A quantity made of other metrics' estimates.

    Attributes:
        unit: where it depends on the options, ``__init__`` sets it.
    """

    role: ClassVar[str] = ""
    unit: str = "rate"  # type: ignore[misc] # some depend on the options

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """Ids of the metrics that it is made of."""

    @property
    def row_role(self) -> Literal["target", "retained", "model"]:
        """``model``: one row a model and task; ``target`` or ``retained``: one for all concepts and one a concept of that role."""
        return "model"

    @abstractmethod
    def better(self) -> Better:
        """Which direction is good."""

    @abstractmethod
    def combine(self, estimates: Estimates, concept: str) -> Estimate:
        """The value with its interval, or the reason why there is none.

        Args:
            estimates: of the model; for the base itself, of the base.
            concept: name or ``*``.
        """
