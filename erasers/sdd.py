"""Safe self-Distillation Diffusion (Kim et al. 2023): the prediction for the concept becomes the one for no prompt."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.schemas import Sampler
from conceptbench.erasers.shared.latents import NoisyBatch, Trajectories, TrajectoryConfig
from conceptbench.erasers.shared.loop import Terms, train, trainable
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of


class SDDConfig(TrajectoryConfig):
    """Options; the defaults are the released code's.

    Attributes:
        teacher: ``self``: the goal is the current model's prediction for the empty prompt, without gradient (Kim et al.);
            ``frozen``: the base's (the form in the SepME paper).
        ema: decay of the average of the weights, which samples x_t (``latents: current``) and is what the erasure holds.
        start_guidance: guidance of the trajectories that x_t lies on; at 1 (or 0) they are unconditional, as in the released code.
        order: several texts take turns (``iterative``), are drawn at ``random``, or are one text with commas (``composite``); a
            trajectory of a bank is drawn from those of the turn's text.
    """

    parameters: str = "xattn"
    steps: int = Field(default=1500, ge=1)
    optimiser: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float | None = 1.0
    teacher: Literal["self", "frozen"] = "self"
    ema: float = Field(default=0.999, ge=0, lt=1)
    start_guidance: float = Field(default=1.0, ge=0)
    order: Literal["iterative", "random", "composite"] = "iterative"

    def trajectories(self, size: int | None) -> Sampler:
        """With guidance 0 in the place of 1: its answer is the unconditional one, which is not that for the prompt "" on SDXL."""
        sampler = super().trajectories(size)
        return sampler.model_copy(update={"guidance": 0.0}) if sampler.guidance == 1 else sampler


class Points:
    """Where x_t comes from, the texts to erase there, and the goal.

    Args:
        base: the model being trained; unmodified for now.
        ctx: gives the noise.
        request: targets.
        config: the average's partial denoising or a bank of the base's trajectories, and with which guidance.
        average: the average's values, changed in place from outside.
    """

    def __init__(self, base: Base, ctx: Context, request: EraseRequest, config: SDDConfig, average: dict[str, Tensor]) -> None:
        self.base, self.ctx, self.config, self.average = base, ctx, config, average
        self.texts = [t for c in request.targets for t in c.texts(config.texts)]
        if config.order == "composite":
            self.texts = [", ".join(p for c in request.targets for p in c.phrases)]
        self.trajectories = Trajectories(base, self.texts, config, config.trajectories(request.sampler.size), ctx)

    def turn(self, step: int) -> list[str]:
        """The texts of a step."""
        rows, n = self.config.batch, len(self.texts)
        if self.config.order == "random":
            return [self.texts[i] for i in torch.randint(n, (rows,), generator=self.ctx.generator).tolist()]
        return [self.texts[(step * rows + i) % n] for i in range(rows)]

    def draw(self, step: int, teacher: dict[str, Tensor]) -> tuple[NoisyBatch, Tensor]:
        """Points with the texts to erase there, and the goal (B, C, h, w): the prediction for the empty prompt with the teacher's values."""
        with self.base.swapped(self.average):
            b = self.trajectories.draw(teacher, self.turn(step))
        if self.config.latents == "current" or self.config.teacher == "frozen":
            return b, b.uncond
        with torch.no_grad():
            return b, self.base.predict(b.x_t, b.t, self.base.encode_unconditional([""]).expand(len(b.texts)).to(self.base.device, self.base.dtype))


class SDD(Eraser[SDDConfig]):
    """|| eps(x_t, c) - sg eps(x_t, empty) ||^2, both of the model being trained; its average over the steps is kept."""

    name = "sdd"
    summary = "trains the model's prediction for the concept to its own for no prompt"
    reference = "Kim et al. 2023, arXiv:2307.05977"
    Config: ClassVar[type[EraserConfig]] = SDDConfig
    variants = MappingProxyType({"x": {"parameters": "xattn"}, "u": {"parameters": "noxattn"}, "full": {"parameters": "full"}})
    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: SDDConfig, targets: int) -> Load:
        """The training steps, the points, and beside a bank the goal's predictions."""
        rows = config.steps * config.batch
        goals = rows if config.latents == "base" and config.teacher == "self" else 0
        return Load(config.sampled_rows(targets) + goals, rows, config.batch, config.parameters)

    def erase(self, base: Base, request: EraseRequest, config: SDDConfig, ctx: Context) -> Erasure:
        """Trains the chosen parameters and returns their average."""
        with trainable(base, config.parameters) as parameters:
            originals, average = values_of(parameters), values_of(parameters)
            points = Points(base, ctx, request, config, average)

            def loss(step: int) -> Tensor:
                b, goal = points.draw(step, originals if config.teacher == "frozen" else {n: p.data for n, p in parameters.items()})
                return ((base.predict(b.x_t, b.t, base.encode(b.texts).to(base.device, base.dtype)) - goal) ** 2).mean()

            @torch.no_grad()
            def after(_step: int, _terms: Terms) -> bool:
                for name, value in average.items():
                    value.mul_(config.ema).add_(parameters[name], alpha=1 - config.ema)
                return False

            train(parameters, loss, config, ctx, state=average, after=after)
            return Erasure.additive(originals, average)
