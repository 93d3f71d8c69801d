"""Safe Latent Diffusion (Schramowski et al. 2023): guides away from a text where the prompt comes close to it. Changes no weight."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Supports
from conceptbench.models.erasure import Erasure, RuntimeSpec
from conceptbench.models.runtime import Runtime

MEDIUM = {"warmup": 10, "scale": 1000.0, "threshold": 0.01, "momentum_scale": 0.3, "momentum": 0.4}
WEAK = {"warmup": 15, "scale": 200.0, "threshold": 0.0, "momentum_scale": 0.0, "momentum": 0.0}


class SLDConfig(EraserConfig):
    """Options; the variants are the paper's table of presets.

    Attributes:
        text: what to guide away from; None for the targets' phrases.
        warmup: delta, steps at the beginning that are only watched. It counts steps, as in the paper, which always samples with
            50; with fewer, set it to the same share of them.
        scale: s_S; the guidance of an element is its distance from the text's prediction times this, at most 1.
        threshold: lambda; elements where the prompt's prediction exceeds the text's by so much are left alone.
        momentum_scale: s_m, how much of the momentum is added.
        momentum: beta_m, how much of it lasts to the next step.
        separator: between several phrases.
    """

    text: str | None = None
    warmup: int = Field(default=10, ge=0)
    scale: float = Field(default=1000.0, gt=0)
    threshold: float = 0.01
    momentum_scale: float = Field(default=0.3, ge=0, le=1)
    momentum: float = Field(default=0.4, ge=0, lt=1)
    separator: str = ", "


class SafeGuidance(Runtime):
    """Classifier-free guidance with a third prediction, for a text that images should not show (Schramowski et al. 2023, eqs. 3 to 8).

    It works on what the denoiser predicts: for models of v the threshold and the scale are of v, as in diffusers' pipeline.

    Config:
        text, warmup, scale, threshold, momentum_scale, momentum: see :class:`SLDConfig`.
    """

    name = "sld"
    _momentum: Tensor

    def extra_texts(self, conditions: Sequence[Condition]) -> list[str]:
        """The text, once an image."""
        return [str(self.config["text"])] * len(conditions)

    def guide(self, uncond: Tensor, cond: Tensor, extra: Tensor | None, scale: Tensor, step: int) -> Tensor:
        """The guided prediction (N, C, h, w); the momentum begins anew at step 0."""
        if extra is None:  # no guidance: nothing to change
            return super().guide(uncond, cond, extra, scale, step)
        if step == 0:
            self._momentum = torch.zeros_like(cond)
        c, distance = self.config, cond - extra
        weight = (distance.abs() * c["scale"]).clamp(max=1.0).where(distance < c["threshold"], torch.zeros_like(distance))
        safety = weight * (extra - uncond) + c["momentum_scale"] * self._momentum
        self._momentum = c["momentum"] * self._momentum + (1 - c["momentum"]) * safety
        return uncond + scale * (cond - uncond - safety if step >= c["warmup"] else cond - uncond)


class SLD(Eraser[SLDConfig]):
    """Nothing is trained: the erasure is a runtime with the targets' names.

    A prompt that is the text itself is not guided at all: the distance of their predictions is 0 everywhere.
    """

    name = "sld"
    summary = "guides away from the target's name where a prompt comes close to it; no weight changes"
    reference = "Schramowski et al. 2023, arXiv:2211.05105"
    Config: ClassVar[type[EraserConfig]] = SLDConfig
    variants = MappingProxyType(
        {
            "medium": MEDIUM,
            "weak": WEAK,
            "weak-diffusers": {**WEAK, "scale": 20.0},
            "strong": {"warmup": 7, "scale": 2000.0, "threshold": 0.025, "momentum_scale": 0.5, "momentum": 0.7},
            "max": {"warmup": 0, "scale": 5000.0, "threshold": 1.0, "momentum_scale": 0.5, "momentum": 0.7},
        }
    )
    supports = Supports(needs_cfg=True)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: SLDConfig) -> None:  # noqa: ARG003 - any base will do
        """Refuses a warm-up that lasts as long as the sampling."""
        if config.warmup >= request.sampler.steps:
            raise UserInputError(
                f"sld begins after {config.warmup} steps (warmup), but the suite samples with {request.sampler.steps}",
                f"set warmup below that; the same share as in the paper is {config.warmup * request.sampler.steps // 50}",
            )

    def erase(self, base: Base, request: EraseRequest, config: SLDConfig, ctx: Context) -> Erasure:
        """Names the targets to the runtime."""
        text = config.separator.join(p for c in request.targets for p in c.phrases) if config.text is None else config.text
        return Erasure(runtime=RuntimeSpec("sld", {**config.model_dump(exclude={"separator"}), "text": text}))
