"""Erased Stable Diffusion (Gandikota et al. 2023): train the model to guide itself away from the concept."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.schemas import Sampler
from conceptbench.erasers.shared.latents import NoisyBatch, TrajectoryBank, partly_denoised
from conceptbench.erasers.shared.loop import TrainingConfig, train, trainable
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of


class ESDConfig(TrainingConfig):
    """Options.

    Attributes:
        negative_guidance: eta, how far to guide away.
        start_guidance: s_g, guidance of the trajectories that x_t lies on.
        denoising_steps: DDIM steps of a whole trajectory.
        latents: ``current``: x_t from partial denoising with the model being trained (paper); ``base``: from a bank of the
            frozen base's trajectories, made once (the released diffusers code also takes x_t from the frozen base).
        bank: trajectories in the bank.
        texts: in how many of its training templates each phrase of a concept is used; 1 is the bare phrase, as in the paper.
    """

    negative_guidance: float = 1.0
    start_guidance: float = 3.0
    denoising_steps: int = Field(default=50, ge=1)
    latents: Literal["current", "base"] = "current"
    bank: int = Field(default=64, ge=1)
    texts: int = Field(default=1, ge=1)


def esd_target(cond: Tensor, uncond: Tensor, eta: float) -> Tensor:
    """eps*(x_t, empty) - eta (eps*(x_t, c) - eps*(x_t, empty)): Gandikota et al. 2023, eq. 7. All (B, C, h, w)."""
    return uncond - eta * (cond - uncond)


class ESD(Eraser[ESDConfig]):
    """|| eps(x_t, c) - [eps*(x_t, empty) - eta (eps*(x_t, c) - eps*(x_t, empty))] ||^2, the starred model frozen."""

    name = "esd"
    summary = "trains the model's prediction for the concept to its negative guidance"
    reference = "Gandikota et al. 2023, arXiv:2303.07345"
    Config: ClassVar[type[EraserConfig]] = ESDConfig
    variants = MappingProxyType(
        {
            "x": {"parameters": "xattn"},
            "u": {"parameters": "noxattn"},
            "strict": {"parameters": "kv"},
            "full": {"parameters": "full"},
        }
    )
    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: ESDConfig, targets: int) -> Load:  # noqa: ARG003 - targets take turns
        """The training steps, and a bank of whole trajectories or half a trajectory (on average) and the teacher a step."""
        rows = config.steps * config.batch
        guided = 2 if config.start_guidance != 1 else 1
        plain = config.bank * config.denoising_steps * guided if config.latents == "base" else rows * (config.denoising_steps // 2 * guided + 2)
        return Load(plain, rows, config.batch, config.parameters)

    def erase(self, base: Base, request: EraseRequest, config: ESDConfig, ctx: Context) -> Erasure:
        """Trains the chosen parameters; several targets take turns at random."""
        texts = [t for concept in request.targets for t in concept.texts(config.texts)]
        sampler = Sampler(scheduler="ddim", steps=config.denoising_steps, guidance=config.start_guidance, size=request.sampler.size)
        bank = TrajectoryBank(base, texts, config.bank, sampler, ctx) if config.latents == "base" else None
        with trainable(base, config.parameters) as parameters:
            originals = values_of(parameters)

            def batch() -> NoisyBatch:
                if bank is not None:
                    return bank.draw(config.batch, ctx.generator)
                rows = torch.randint(len(texts), (config.batch,), generator=ctx.generator)
                return partly_denoised(base, [texts[i] for i in rows.tolist()], sampler, ctx.generator, originals)

            def loss(_step: int) -> Tensor:
                b = batch()
                predicted = base.predict(b.x_t, b.t, base.encode(b.texts).to(base.device, base.dtype))
                return ((predicted - esd_target(b.cond, b.uncond, config.negative_guidance)) ** 2).mean()

            return Erasure.additive(originals, train(parameters, loss, config, ctx))
