"""Where a trained eraser's x_t comes from: partial denoising with the current model, or a bank of the frozen base's trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.schemas import Sampler
from conceptbench.erasers.shared.loop import TrainingConfig
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.eraser import Context
from conceptbench.models.sampling import denoise
from conceptbench.models.schedulers import make_scheduler, timesteps_of


class TrajectoryConfig(TrainingConfig):
    """Options of erasers that train at points of sampling trajectories.

    Attributes:
        start_guidance: s_g, guidance of the trajectories that x_t lies on.
        denoising_steps: DDIM steps of a whole trajectory.
        latents: ``current``: x_t from partial denoising with the model being trained; ``base``: from a bank of the frozen base's
            trajectories, made once.
        bank: trajectories in the bank, at least one for each text.
        texts: in how many of its training templates each phrase of a concept is used; 1 is the bare phrase.
    """

    start_guidance: float = Field(default=3.0, ge=0)
    denoising_steps: int = Field(default=50, ge=1)
    latents: Literal["current", "base"] = "current"
    bank: int = Field(default=64, ge=1)
    texts: int = Field(default=1, ge=1)

    def trajectories(self, size: int | None) -> Sampler:
        """How trajectories for images of ``size`` pixels (None: the base's own) are drawn."""
        return Sampler(scheduler="ddim", steps=self.denoising_steps, guidance=self.start_guidance, size=size)

    def sampled_rows(self, targets: int = 1) -> int:
        """Rows without gradient for x_t and the frozen predictions there: a bank, or half a trajectory (on average) a step."""
        if self.latents == "base":
            return max(self.bank, targets * self.texts) * self.denoising_steps * 2
        guided = 2 if self.trajectories(None).guidance != 1 else 1
        return self.steps * self.batch * (self.denoising_steps // 2 * guided + 2)


@dataclass(frozen=True)
class NoisyBatch:
    """Points on sampling trajectories, with the frozen base's predictions there.

    Attributes:
        x_t: (B, C, h, w) latents.
        t: (B,) timesteps.
        texts: B prompts.
        cond, uncond: (B, C, h, w) the base's noise predictions with the prompt and with the empty prompt.
    """

    x_t: Tensor
    t: Tensor
    texts: list[str]
    cond: Tensor
    uncond: Tensor


def draw_seeds(n: int, generator: torch.Generator) -> list[int]:
    """N odd noise seeds: training never meets the even ones of held-out images."""
    return [2 * int(i) + 1 for i in torch.randint(2**40, (n,), generator=generator)]


@torch.no_grad()
def teacher(base: Base, x_t: Tensor, t: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Noise predictions of the model as it is now: with the prompts, and with the empty prompt."""
    encoded = Encoded.cat([base.encode(texts), base.encode_unconditional([""]).expand(len(texts))]).to(base.device, base.dtype)
    cond, uncond = base.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), encoded).chunk(2)
    return cond, uncond


class TrajectoryBank:
    """Sampling trajectories of the frozen base, made once in large batches, with its predictions beside them.

    Args:
        base: the unmodified model.
        texts: prompts; trajectory i follows ``texts[i % len(texts)]``.
        n: trajectories; there are as many as texts if that is more, because a text without one would never be trained.
        sampler: steps and guidance.
        ctx: gives the noise, and keeps the bank for a training that is interrupted.
        name: of what is kept, different for each bank of an erasure.

    Attributes:
        x: (steps, n, C, h, w) latents.
        t: (steps, n) timesteps.
        cond, uncond: (steps, n, C, h, w) noise predictions.
    """

    def __init__(self, base: Base, texts: Sequence[str], n: int, sampler: Sampler, ctx: Context, name: str = "trajectories") -> None:
        self.texts = [texts[i % len(texts)] for i in range(max(n, len(texts)))]
        made = ctx.once(name, lambda: self._made(base, sampler, ctx.generator))
        self.x, self.t, self.cond, self.uncond = (made[k] for k in ("x", "t", "cond", "uncond"))

    def _made(self, base: Base, sampler: Sampler, generator: torch.Generator) -> dict[str, Tensor]:
        xs: list[Tensor] = []
        ts: list[Tensor] = []
        conds: list[Tensor] = []
        unconds: list[Tensor] = []
        empty = base.encode_unconditional([""]).expand(len(self.texts)).to(base.device, base.dtype)

        def observe(t: Tensor, x: Tensor, predictions: Sequence[Tensor]) -> None:
            times = t.expand(len(x))
            # sampling without guidance predicts with the prompts alone
            uncond, cond = predictions[:2] if len(predictions) > 1 else (base.predict_exactly(x, t, empty), predictions[0])
            xs.append(x)
            ts.append(times)
            unconds.append(base.convert(uncond, x, times, "eps"))
            conds.append(base.convert(cond, x, times, "eps"))

        denoise(base, [Condition(t) for t in self.texts], draw_seeds(len(self.texts), generator), sampler, observe=observe)
        # cloned outside inference mode so that autograd may keep them
        return {k: torch.stack(v).clone() for k, v in {"x": xs, "t": ts, "cond": conds, "uncond": unconds}.items()}

    def draw(self, batch: int, generator: torch.Generator, texts: Sequence[str] | None = None) -> NoisyBatch:
        """Random points: trajectory and step uniform and independent.

        Args:
            batch: points.
            generator: of both.
            texts: one a point, which its trajectory follows; None for any.
        """
        k = torch.randint(len(self.x), (batch,), generator=generator)
        if texts is None:
            i = torch.randint(len(self.texts), (batch,), generator=generator)
        else:
            own = [[j for j, text in enumerate(self.texts) if text == wanted] for wanted in texts]
            i = torch.tensor([js[int(torch.randint(len(js), (), generator=generator))] for js in own])
        return NoisyBatch(self.x[k, i], self.t[k, i], [self.texts[j] for j in i.tolist()], self.cond[k, i], self.uncond[k, i])


class Trajectories:
    """Points x_t as the options say: of a bank of the base's trajectories, or of fresh ones of the model being trained.

    Args:
        base: unmodified for now.
        texts: prompts that trajectories follow.
        config: which of both, how many, and in batches of what size.
        sampler: steps and guidance.
        ctx: gives the noise.
        name: of the bank.
    """

    def __init__(self, base: Base, texts: Sequence[str], config: TrajectoryConfig, sampler: Sampler, ctx: Context, name: str = "trajectories") -> None:
        self.base, self.texts, self.batch, self.sampler, self.generator = base, list(texts), config.batch, sampler, ctx.generator
        self.bank = TrajectoryBank(base, texts, config.bank, sampler, ctx, name) if config.latents == "base" else None

    def draw(self, originals: dict[str, Tensor], texts: Sequence[str] | None = None) -> NoisyBatch:
        """A batch.

        Args:
            originals: values of the trained parameters for the predictions at fresh points; a bank has the base's.
            texts: one a row; None for random ones.
        """
        if self.bank is not None:
            return self.bank.draw(self.batch, self.generator, texts)
        if texts is None:
            texts = [self.texts[i] for i in torch.randint(len(self.texts), (self.batch,), generator=self.generator).tolist()]
        return partly_denoised(self.base, texts, self.sampler, self.generator, originals)


def partly_denoised(base: Base, texts: Sequence[str], sampler: Sampler, generator: torch.Generator, originals: dict[str, Tensor]) -> NoisyBatch:
    """A fresh batch from the *current* model: k ~ U{0..steps-1} denoising steps from noise, scored at the k-th timestep.

    Args:
        base: the model being trained.
        texts: one prompt a row.
        sampler: steps and guidance.
        generator: of k and the noise.
        originals: the frozen base's values of the trained parameters, for the teacher's predictions.
    """
    k = int(torch.randint(sampler.steps, (1,), generator=generator))
    x_t = denoise(base, [Condition(t) for t in texts], draw_seeds(len(texts), generator), sampler, until=k, exact=False).clone()
    t = timesteps_of(make_scheduler(base.pipeline.scheduler, sampler.scheduler), sampler.steps, base.device)[k].expand(len(texts))
    with base.swapped(originals):
        cond, uncond = teacher(base, x_t, t, texts)
    return NoisyBatch(x_t, t, list(texts), cond, uncond)
