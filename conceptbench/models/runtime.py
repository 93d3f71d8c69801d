"""What an erasure does while sampling, as data: a registered name, a config and artefacts, so that any worker can rebuild it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from conceptbench.models.conditions import Condition

if TYPE_CHECKING:
    from conceptbench.models.base import Base


class Runtime:
    """A change of sampling. The default does nothing: plain classifier-free guidance.

    Args:
        config: the options that the erasure carries.
        artefacts: its tensors.
    """

    name: ClassVar[str] = "none"

    def __init__(self, config: dict[str, Any] | None = None, artefacts: dict[str, Tensor] | None = None) -> None:
        self.config = config or {}
        self.artefacts = artefacts or {}

    @contextmanager
    def attached(self, base: Base) -> Iterator[None]:
        """Entered while the erasure is applied: hooks on the denoiser, gone again on leaving."""
        yield

    def conditions(self, conditions: Sequence[Condition]) -> list[Condition]:
        """Rewrites what the images are conditioned on."""
        return list(conditions)

    def extra_texts(self, conditions: Sequence[Condition]) -> list[str] | None:
        """Texts of a third group of rows that ``guide`` wants predictions for, one an image; None for none."""
        return None

    def guide(self, uncond: Tensor, cond: Tensor, extra: Tensor | None, scale: Tensor, step: int) -> Tensor:
        """Combines predictions (N, C, h, w) into one; ``scale`` is (N, 1, 1, 1), ``step`` counts from 0."""
        return uncond + scale * (cond - uncond)


class NegativePrompt(Runtime):
    """Guides away from a text: it takes the place of the empty prompt, before the prompt's own negative one.

    Config:
        text: what to guide away from.
    """

    name = "negative-prompt"

    def conditions(self, conditions: Sequence[Condition]) -> list[Condition]:
        """Puts the text in front of each negative prompt."""
        text = str(self.config["text"])
        return [Condition(c.text, f"{text}, {c.negative}" if c.negative else text) for c in conditions]
