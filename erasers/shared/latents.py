"""Where a trained eraser's x_t comes from: partial denoising with the current model, or a bank of the frozen base's trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conceptbench.core.schemas import Sampler
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.eraser import Context
from conceptbench.models.sampling import denoise
from conceptbench.models.schedulers import make_scheduler, timesteps_of


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
        n: trajectories.
        sampler: steps and guidance.
        ctx: gives the noise, and keeps the bank for a training that is interrupted.

    Attributes:
        x: (steps, n, C, h, w) latents.
        t: (steps, n) timesteps.
        cond, uncond: (steps, n, C, h, w) noise predictions.
    """

    def __init__(self, base: Base, texts: Sequence[str], n: int, sampler: Sampler, ctx: Context) -> None:
        self.texts = [texts[i % len(texts)] for i in range(n)]
        made = ctx.once("trajectories", lambda: self._made(base, sampler, ctx.generator))
        self.x, self.t, self.cond, self.uncond = (made[k] for k in ("x", "t", "cond", "uncond"))

    def _made(self, base: Base, sampler: Sampler, generator: torch.Generator) -> dict[str, Tensor]:
        xs: list[Tensor] = []
        ts: list[Tensor] = []
        conds: list[Tensor] = []
        unconds: list[Tensor] = []

        def observe(t: Tensor, x: Tensor, predictions: Sequence[Tensor]) -> None:
            times = t.expand(len(x))
            xs.append(x)
            ts.append(times)
            unconds.append(base.convert(predictions[0], x, times, "eps"))
            conds.append(base.convert(predictions[1], x, times, "eps"))

        denoise(base, [Condition(t) for t in self.texts], draw_seeds(len(self.texts), generator), sampler, observe=observe)
        # cloned outside inference mode so that autograd may keep them
        return {k: torch.stack(v).clone() for k, v in {"x": xs, "t": ts, "cond": conds, "uncond": unconds}.items()}

    def draw(self, batch: int, generator: torch.Generator) -> NoisyBatch:
        """Random points: trajectory and step uniform and independent."""
        k = torch.randint(len(self.x), (batch,), generator=generator)
        i = torch.randint(len(self.texts), (batch,), generator=generator)
        return NoisyBatch(self.x[k, i], self.t[k, i], [self.texts[j] for j in i.tolist()], self.cond[k, i], self.uncond[k, i])


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
