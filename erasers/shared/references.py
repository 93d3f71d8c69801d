"""Where x_t comes from in methods that train on images: noised latents of the base's own pictures, or of a folder's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conceptbench.core.schemas import Concept
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context


@dataclass(frozen=True)
class Noised:
    """A batch of noised latents.

    Attributes:
        x: (B, C, h, w) clean latents.
        noise: (B, C, h, w).
        t: (B,) timesteps.
        x_t: (B, C, h, w) noised latents.
        index: (B,) which of the references.
        texts: B prompts that the references were drawn for.
    """

    x: Tensor
    noise: Tensor
    t: Tensor
    x_t: Tensor
    index: Tensor
    texts: list[str]


@dataclass(frozen=True)
class References:
    """Clean latents with the texts that they were drawn for.

    Attributes:
        latents: (n, C, h, w).
        texts: n prompts.
    """

    latents: Tensor
    texts: list[str]

    @classmethod
    def of(cls, base: Base, ctx: Context, concept: Concept, n: int, folder: str | None = None) -> References:
        """N images of a concept from the unmodified base, or of a folder, through the autoencoder."""
        texts = concept.texts()
        return cls(base.latents_of(ctx.images(concept, n, folder)), [texts[i % len(texts)] for i in range(n)])

    @classmethod
    def cat(cls, parts: Sequence[References]) -> References:
        """Parts one below the other."""
        return cls(torch.cat([p.latents for p in parts]), [t for p in parts for t in p.texts])

    def draw(self, base: Base, batch: int, generator: torch.Generator) -> Noised:
        """Random references, each with a timestep, uniform over all, and noise of its own."""
        index = torch.randint(len(self.texts), (batch,), generator=generator)
        t = torch.randint(len(base.alphas), (batch,), generator=generator)
        return self.noised(base, index, t, torch.randn((batch, *self.latents.shape[1:]), generator=generator))

    def noised(self, base: Base, index: Tensor, t: Tensor, noise: Tensor) -> Noised:
        """Chosen references at chosen timesteps; arguments on the CPU, results where the latents are."""
        x = self.latents[index.to(self.latents.device)]
        noise, t = noise.to(x), t.to(x.device)
        return Noised(x, noise, t, base.add_noise(x, noise, t), index, [self.texts[i] for i in index.tolist()])
