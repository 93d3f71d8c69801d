"""The contract of an eraser: a frozen config and one method that turns a base and a request into an erasure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.core.schemas import Concept, Sampler, Strict
from conceptbench.models.base import Base
from conceptbench.models.erasure import Erasure


class EraserConfig(Strict):
    """Base of every eraser's options: frozen, unknown keys are errors."""

    def folders(self) -> tuple[str, ...]:
        """Folders of images that the options name: their content becomes part of the erasure's key."""
        return ()


@dataclass(frozen=True)
class Supports:
    """What an eraser can do; checked when a run is planned, before anything starts.

    Attributes:
        families: bases that it can edit.
        multi: several targets at once.
        iterative: going on from a model in which other targets are erased already, and erasing targets apart and summing the changes:
            for methods whose changes of weights are additive.
        independent: in turn, each target's change is made from the unmodified base all the same, and only added to the earlier ones.
        heeds_others: its change for one target depends on the other targets of the erasure; they are named to no other method, so that
            a target's part is the same whatever else is erased.
        restore: its erasures have a part for each target, which can be left out.
        recover: its erasures bring a target back with a hidden artefact.
        needs_cfg: it works only with guidance other than 1.
    """

    families: tuple[str, ...] = ("sd1", "sd2", "sdxl")
    multi: bool = True
    iterative: bool = False
    independent: bool = False
    heeds_others: bool = False
    restore: bool = False
    recover: bool = False
    needs_cfg: bool = False


@dataclass(frozen=True)
class Load:
    """How often an eraser will evaluate the denoiser, so that ``plan`` can say how long it takes.

    Attributes:
        plain: rows without gradient.
        trained: rows with a backward pass.
        batch: rows of one training step.
        parameters: the named group that is trained.
        images: images that it asks of the base, drawn as the suite draws them; those in the store already cost nothing.
        shared: rows with a backward pass for what is kept for all erasures (Fisher information).
    """

    plain: int = 0
    trained: int = 0
    batch: int = 1
    parameters: str = "full"
    images: int = 0
    shared: int = 0


@dataclass(frozen=True)
class EraseRequest:
    """What to erase, and what to leave alone.

    Attributes:
        targets, retained: concepts; a target's anchor is in the concept.
        sampler: how the suite samples, for erasers that denoise while they train.
        others: targets that other parts of the same erasure erase, where each target is erased on its own: a part should not undo
            them nor depend on them. In turn: those before this one; the base that the eraser gets has them erased, unless it says that
            it is ``independent``. Empty for erasers that do not heed them.
        seed: of every draw.
    """

    targets: tuple[Concept, ...]
    retained: tuple[Concept, ...]
    sampler: Sampler
    others: tuple[Concept, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class SavedTraining:
    """Where a training that was interrupted goes on: the steps that are done, and the tensors that the eraser kept."""

    step: int
    tensors: dict[str, Tensor]


class Context(Protocol):
    """What the harness gives an eraser besides the base."""

    @property
    def generator(self) -> torch.Generator:
        """The seeded CPU generator for every draw of the eraser."""
        ...

    def images(self, concept: Concept, n: int, folder: str | None = None) -> NDArray[np.uint8]:
        """N images (n, H, W, 3) of a concept from the unmodified base, made once and kept in the store.

        Image i shows ``concept.texts()[i % len(concept.texts())]``. The concept may be made up: a surrogate with phrases and templates.

        Args:
            concept: whose training texts.
            n: how many.
            folder: the first n images of this folder instead, cut to squares of the base's size.

        Raises:
            UserInputError: the folder is not there or has too few images.
        """
        ...

    def progress(self, step: int, total: int, loss: float, *, prompt: Tensor | None = None, **values: float) -> None:
        """Reports a training step; the values become the report's training curves.

        Call it while the base has the step's values: a suite may want to look at the images that the model gives by then.

        Args:
            step: from 0.
            total: steps.
            loss: of the step.
            prompt: (k, width) a prompt that is being learned, in the space of the text encoder's states, if there is one.
            values: of the step.
        """
        ...

    def tick(self) -> None:
        """Called now and then in long work that is no training step: the session may have been asked to stop."""
        ...

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that are dear to make (trajectories, Fisher information): kept on disk until the erasure is made."""
        ...

    def shared(self, name: str, key: Mapping[str, Any], make: Callable[[torch.Generator], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that depend on the unmodified base and on ``key`` only (Fisher information): kept for all erasures.

        Args:
            name: of what they are.
            key: all options that they depend on; plain values.
            make: makes them from the base with a generator that is seeded by all of this.
        """
        ...

    def saved(self) -> SavedTraining | None:
        """The state that an interrupted training left, with :attr:`generator` set back to it; None to begin."""
        ...

    def checkpoint(self, step: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        """Called after each step with all tensors of the training's state; saves them now and then."""
        ...


ConfigT = TypeVar("ConfigT", bound=EraserConfig)


class Eraser(ABC, Generic[ConfigT]):
    """A method. One file; presets are data beside it.

    Attributes:
        name: registered name.
        summary: one line.
        reference: the paper.
        Config: its options.
        variants: variant -> overrides of the options; the first is the default. ``{"": {}}`` for a method without variants.
        supports: what it can do.
        uses: other erasers that it is made of: an edit of theirs makes its erasures anew.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    Config: ClassVar[type[EraserConfig]] = EraserConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({"": MappingProxyType({})})
    supports: ClassVar[Supports] = Supports()
    uses: ClassVar[tuple[type[Eraser[Any]], ...]] = ()

    @classmethod
    def load(cls, config: ConfigT, targets: int) -> Load:  # noqa: ARG003 - methods that sample for each target override it
        """How much work an erasure of so many targets is; by default what its training steps say, if it has any."""
        steps, batch = getattr(config, "steps", 0), getattr(config, "batch", 1)
        return Load(0, steps * batch, batch, getattr(config, "parameters", "full"))

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: ConfigT) -> None:
        """Raises UserInputError if this cannot be done for this base; called for every erasure of a plan before anything starts."""

    @classmethod
    def check_restoring(cls, config: ConfigT, restored: Sequence[str], key: str) -> None:
        """Raises UserInputError if targets cannot be brought back with this key (:meth:`Erasure.restoring`); called when a run is planned."""

    @abstractmethod
    def erase(self, base: Base, request: EraseRequest, config: ConfigT, ctx: Context) -> Erasure:
        """Makes the erasure. The base must be as it was on return."""
