"""Class-conditional families: a condition's text is the name of a class; the empty text is no class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.schemas import Sampler
from conceptbench.models.base import Base, Draws
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.cvae import negative_elbo
from conceptbench.models.diffusion import DiffusionBase
from conceptbench.models.rows import IMAGE_ROWS, in_blocks


class ClassConditional(Base):
    """Encodes names of classes as one-hot rows (N, 1, K), and no class as zeros. Images are pixels; gray ones have three equal channels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's labels."""
        return tuple(self.pipeline.classes)

    def _encode_texts(self, texts: list[str]) -> Encoded:
        classes = self.classes
        rows = torch.zeros(len(texts), 1, len(classes), device=self.device, dtype=self.dtype)
        for row, text in zip(rows, texts, strict=True):
            if text and text not in classes:
                raise unknown_name(f"class of {self.info.id}", text, classes)
            if text:
                row[0, classes.index(text)] = 1
        return Encoded(rows)

    def _pixels(self, images: NDArray[np.uint8], channels: int) -> Tensor:
        """(N, H, W, 3) uint8 to (N, C, H, W) in [0, 1]."""
        x = torch.tensor(images).permute(0, 3, 1, 2).to(self.device, self.dtype) / 255
        return x.mean(1, keepdim=True) if channels == 1 else x

    @staticmethod
    def _images(x: Tensor) -> NDArray[np.uint8]:
        """(N, C, H, W) in [0, 1] to (N, H, W, 3) uint8."""
        x = (x.float().clamp(0, 1) * 255).round().byte()
        return x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().cpu().numpy()


class ClassDiffusionBase(ClassConditional, DiffusionBase):
    """A DDPM of pixels (Ho et al. 2020) whose label embedding scales and shifts every block together with the time's (family ``ddpm``).

    The network has one label more than there are classes: no class, for classifier-free guidance (Ho and Salimans 2022).
    """

    clips = True  # Ho et al. 2020: latents are pixels

    def _arguments(self, encoded: Encoded, x_t: Tensor) -> dict[str, Any]:  # noqa: ARG002 - other families use it
        rows = encoded.hidden[:, 0]
        return {"class_labels": torch.where(rows.any(1), rows.argmax(1), rows.shape[1])}

    def objective(self, x: Tensor, encoded: Encoded, draws: Draws) -> Tensor:
        """Squared norm of the error of the noise: the sum over an example's values (Ho et al. 2020, eq. 14). Returns (N,)."""
        return super().objective(x, encoded, draws) * x[0].numel()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """(N, C, H, W) pixels in [-1, 1] to (N, H, W, 3) uint8."""
        return self._images(latents / 2 + 0.5)

    @torch.no_grad()
    def latents_of(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to pixels (N, C, H, W) in [-1, 1]."""
        return self._pixels(images, self.unet.config.in_channels) * 2 - 1


class CVAEBase(ClassConditional):
    """A conditional variational autoencoder (family ``cvae``): draws the means of the pixels for a code from N(0, I)."""

    component = "vae"

    @property
    def timesteps(self) -> int:
        """One: there is no time."""
        return 1

    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """As the codes."""
        return len(x), int(self.network.config.latent)

    def objective(self, x: Tensor, encoded: Encoded, draws: Draws) -> Tensor:
        """The negative ELBO in nats, summed over pixels (Heng and Soh 2023, eq. 4). Returns (N,)."""
        return negative_elbo(x, *self.network(x, encoded.hidden[:, 0], draws.noise))

    def latent_shape(self, size: int | None) -> tuple[int, int, int]:
        """(C, H, W)."""
        own = int(self.network.config.size)
        if size not in (None, own):
            raise UserInputError(f"{self.info.id} draws {own} pixels a side, not {size}", f"leave the sampler's size out, or give {own}")
        return int(self.network.config.channels), own, own

    @torch.no_grad()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """(N, C, H, W) pixels in [0, 1] to (N, H, W, 3) uint8."""
        return self._images(latents)

    @torch.no_grad()
    def latents_of(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to pixels (N, C, H, W) in [0, 1]."""
        return self._pixels(images, self.network.config.channels)

    def redrawn(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A Bernoulli draw of every pixel: p(x | z, c) of the paper's decoder. x: means in [0, 1]."""
        return torch.bernoulli(x.cpu(), generator=generator).to(x)

    @torch.inference_mode()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int], sampler: Sampler, until: int | None = None) -> NDArray[np.uint8] | Tensor:
        """The decoder's means for one code a seed, whatever steps and guidance are; after all steps they are the latents."""
        self.latent_shape(sampler.size)
        if until not in (None, sampler.steps):
            self._has_no("denoising steps")
        codes = self._noise((int(self.network.config.latent),), seeds)
        classes = self.encode([c.text for c in conditions]).hidden[:, 0]
        self.evaluations += len(conditions)
        rows = in_blocks(lambda z, c: self.network.decode(z, c).sigmoid(), IMAGE_ROWS, codes, classes, fill=self.exact_rows is not None)
        return self.decode(rows) if until is None else rows
