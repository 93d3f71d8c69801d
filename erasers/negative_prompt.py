"""Negative prompt: guide away from the target's name while sampling. Changes no weight."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Supports
from conceptbench.models.erasure import Erasure, RuntimeSpec


class NegativePromptConfig(EraserConfig):
    """Options.

    Attributes:
        text: what to guide away from; None for the targets' own.
        of: their ``phrases``, or each one's ``name``: of an ambiguous phrase the reading, which the phrase does not say.
        separator: between several targets' phrases.
    """

    text: str | None = Field(default=None, min_length=1)
    of: Literal["phrases", "name"] = "phrases"
    separator: str = ", "


class NegativePrompt(Eraser[NegativePromptConfig]):
    """The phrases of all targets take the place of the empty prompt in classifier-free guidance (Ho & Salimans 2022)."""

    name = "negative-prompt"
    summary = "the target's name in place of the empty prompt; no weight changes"
    reference = "Ho & Salimans 2022, arXiv:2207.12598"
    Config: ClassVar[type[EraserConfig]] = NegativePromptConfig
    supports = Supports(needs_cfg=True)

    def erase(self, base: Base, request: EraseRequest, config: NegativePromptConfig, ctx: Context) -> Erasure:
        """Names the targets to the runtime."""
        own = [n for c in request.targets for n in (c.phrases if config.of == "phrases" else (c.name,))]
        return Erasure(runtime=RuntimeSpec("negative-prompt", {"text": config.separator.join(own) if config.text is None else config.text}))
