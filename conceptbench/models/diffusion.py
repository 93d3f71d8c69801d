"""Diffusion models: noise, what the denoiser says of it, and drawing by denoising."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.core.schemas import Sampler
from conceptbench.models.base import Base, Draws, Prediction
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.info import BaseInfo
from conceptbench.models.rows import padded
from conceptbench.models.sampling import denoise
from conceptbench.models.schedulers import make_scheduler


class DiffusionBase(Base):
    """A denoiser (``unet``) with a noise schedule (``scheduler``).

    Args:
        info: identity and hashes.
        pipeline: a diffusers pipeline, or one of this package.
    """

    def __init__(self, info: BaseInfo, pipeline: Any) -> None:
        super().__init__(info, pipeline)
        self.unet = self.network
        self.train_scheduler = make_scheduler(self.pipeline.scheduler, "ddim")
        self._alphas: Tensor = self.train_scheduler.alphas_cumprod.to(torch.float32)

    @property
    def alphas(self) -> Tensor:
        """(T,) cumulative products of 1 - beta, on the CPU."""
        return self._alphas

    @property
    def timesteps(self) -> int:
        """All of the noise schedule."""
        return len(self._alphas)

    @abstractmethod
    def _arguments(self, encoded: Encoded, x_t: Tensor) -> dict[str, Any]:
        """The denoiser's arguments for these conditions and latents, beside x_t and t."""

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(a_t) x + sqrt(1 - a_t) noise."""
        a = self.alphas.to(x.device)[t].view(-1, 1, 1, 1)
        return a.sqrt() * x + (1 - a).sqrt() * noise

    def predict(self, x_t: Tensor, t: Tensor, encoded: Encoded, to: Prediction = "eps") -> Tensor:
        """The denoiser's answer, see :meth:`Base.predict`."""
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        denoiser = self.unet
        if self._fast and self._compiled is not None:  # a compiled forward calls no hooks
            denoiser = self._compiled
            self.evaluations += len(x_t)
        out = denoiser(x_t, t, **self._arguments(encoded, x_t)).sample.to(x_t.dtype)
        return self.convert(out, x_t, t, to)

    def predict_exactly(self, x_t: Tensor, t: Tensor, encoded: Encoded) -> Tensor:
        """The native prediction, in blocks of :attr:`exact_rows` rows. t: scalar."""
        rows = self.exact_rows
        parts = []
        for start in range(0, len(x_t), rows or len(x_t)):
            block, own = x_t[start : start + (rows or len(x_t))], encoded[start : start + (rows or len(x_t))]
            size = rows or len(block)
            parts.append(self.predict(padded(block, size), t, own.padded(size), to="native")[: len(block)])
            self.evaluations -= size - len(block)  # padding is no work of the method's
        return torch.cat(parts)

    def convert(self, out: Tensor, x_t: Tensor, t: Tensor, to: Prediction) -> Tensor:
        """Converts a native prediction (epsilon or v) to noise or clean latents."""
        if to == "native":
            return out
        a = self.alphas.to(x_t.device)[t].view(-1, 1, 1, 1)
        if self.train_scheduler.config.prediction_type == "v_prediction":
            eps, x0 = a.sqrt() * out + (1 - a).sqrt() * x_t, a.sqrt() * x_t - (1 - a).sqrt() * out
        else:
            eps, x0 = out, (x_t - (1 - a).sqrt() * out) / a.sqrt()
        return eps if to == "eps" else x0

    def native_goal(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser was trained to predict for clean latents x with noise at timesteps t: the noise, or v. (N, C, h, w)."""
        if self.train_scheduler.config.prediction_type != "v_prediction":
            return noise
        a = self.alphas.to(x)[t].view(-1, 1, 1, 1)
        return a.sqrt() * noise - (1 - a).sqrt() * x

    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """As the latents."""
        return tuple(x.shape)

    def objective(self, x: Tensor, encoded: Encoded, draws: Draws) -> Tensor:
        """Squared error of noise (or v), the mean over an example's values. Returns (N,)."""
        predicted = self.predict(self.add_noise(x, draws.noise, draws.t), draws.t, encoded, to="native")
        return ((predicted - self.native_goal(x, draws.noise, draws.t)) ** 2).mean((1, 2, 3))

    def latent_shape(self, size: int | None) -> tuple[int, int, int]:
        """(C, h, w) of an image of ``size`` pixels, or of the base's own size."""
        cells = self.unet.config.sample_size if size is None else size // self.factor
        return int(self.unet.config.in_channels), int(cells), int(cells)

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int], sampler: Sampler, until: int | None = None) -> NDArray[np.uint8] | Tensor:
        """Draws images, or with ``until`` = k the latents after k denoising steps (k = 0: the initial noise)."""
        latents = denoise(self, conditions, seeds, sampler, until)
        return self.decode(latents) if until is None else latents
