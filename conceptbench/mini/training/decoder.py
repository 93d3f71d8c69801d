"""Stage ``decoder``: sharpens the decoder while encoder and latents stay as the denoiser knows them.

Half of the pictures hold marks here: they are the smallest things in the world and the first to blur.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from conceptbench.mini.training.autoencoder import PICTURES, reconstruction_loss
from conceptbench.mini.training.autoencoder import SEED as PICTURES_SEED
from conceptbench.mini.training.data import pictures, to_float
from conceptbench.mini.training.loop import Schedule, fit
from conceptbench.mini.world import MARKED_SETTINGS

SEED = 14
BATCH = 32
SCHEDULE = Schedule(steps=600, lr=6e-4, ema=0.995, weight_decay=0.0)
NOISE = 0.08  # of latents with standard deviation 1: sampled latents are not exactly encoded ones


class DecoderHalf(nn.Module):
    """The decoder and the 1 x 1 convolution before it."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.before, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, z: Tensor) -> Tensor:
        """Unscaled latents (N, 8, 8, 8) to pixels (N, 3, 32, 32)."""
        return self.decoder(self.before(z))  # type: ignore[no-any-return]


def finetune_decoder(work: Path, steps: int | None = None) -> Path:
    """Trains the decoder of ``work/vae`` and writes it there and into ``work/base``. Returns the autoencoder's folder."""
    torch.manual_seed(SEED)
    data = pictures(work, PICTURES, PICTURES_SEED)
    marked = torch.tensor([i for i, c in enumerate(data.captions) if " mark" in c or any(s in c for s in MARKED_SETTINGS)])
    vae = AutoencoderKL.from_pretrained(work / "vae").requires_grad_(False)
    half = DecoderHalf(vae).requires_grad_(True)
    scale = vae.config.scaling_factor

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.images), (BATCH,), generator=generator)
        rows[: BATCH // 2] = marked[torch.randint(len(marked), (BATCH // 2,), generator=generator)]
        x = to_float(data.images[rows])
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
        return reconstruction_loss(x, half(z + torch.randn(z.shape, generator=generator) * NOISE / scale))

    schedule = SCHEDULE if steps is None else Schedule(steps, SCHEDULE.lr, ema=SCHEDULE.ema, weight_decay=0.0)
    half.load_state_dict(fit(half, loss, schedule, state=work / "decoder.pt", seed=SEED, name="decoder"))
    vae.eval().save_pretrained(work / "vae")
    if (work / "base").exists():
        vae.half().save_pretrained(work / "base" / "vae")
    return work / "vae"
