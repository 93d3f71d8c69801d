"""Stage ``vae``: the mini base's AutoencoderKL, 32 px to 8 x 8 x 8 latents."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from conceptbench.mini.training.data import pictures, to_float
from conceptbench.mini.training.loop import Schedule, fit

SEED = 11
PICTURES = 40_000
BATCH = 32
SCHEDULE = Schedule(steps=3600, lr=1.2e-3, weight_decay=0.0)
KL_WEIGHT = 3e-4
EDGE_WEIGHT = 1.0  # lines are thin: without it they blur first


def build_autoencoder(scaling_factor: float = 1.0) -> AutoencoderKL:
    """The architecture; ``scaling_factor`` makes the latents' standard deviation 1."""
    blocks = ("DownEncoderBlock2D",) * 3
    return AutoencoderKL(
        block_out_channels=(32, 64, 96),
        down_block_types=blocks,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=16,
        sample_size=32,
        scaling_factor=scaling_factor,
    )


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def reconstruction_loss(x: Tensor, y: Tensor) -> Tensor:
    """L1 on pixels and on finite differences. x, y: (N, 3, H, W) in [-1, 1]."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(_gradients(x), _gradients(y), strict=True))
    return F.l1_loss(x, y) + EDGE_WEIGHT * edges


def train_autoencoder(work: Path, steps: int | None = None) -> Path:
    """Trains (or goes on training) and saves the averaged autoencoder as a diffusers folder. Returns the folder."""
    torch.manual_seed(SEED)
    data = pictures(work, PICTURES, SEED).images
    model = build_autoencoder().to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        x = to_float(data[torch.randint(len(data), (BATCH,), generator=generator)])
        posterior = model.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return reconstruction_loss(x, model.decode(z).sample) + KL_WEIGHT * kl

    schedule = SCHEDULE if steps is None else Schedule(steps, SCHEDULE.lr, weight_decay=0.0)
    model.load_state_dict(fit(model, loss, schedule, state=work / "vae.pt", seed=SEED, name="vae"))
    with torch.no_grad():
        latents = torch.cat([model.encode(to_float(data[i : i + 64])).latent_dist.mean for i in range(0, 2048, 64)])
    model.register_to_config(scaling_factor=round(float(1 / latents.std()), 4))
    model.save_pretrained(work / "vae")
    return work / "vae"
