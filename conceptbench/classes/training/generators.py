"""Training of class-conditional models with their own objectives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from conceptbench.classes.datasets import ClassImages
from conceptbench.classes.recipes import Recipe
from conceptbench.classes.training.loop import fit
from conceptbench.models.base import Base
from conceptbench.models.class_pipeline import ClassPipeline
from conceptbench.models.conditions import Encoded
from conceptbench.models.cvae import CVAE
from conceptbench.models.families import base_from_pipeline, load_pipeline

TEST_DRAWS = 10
"""Noises, and timesteps, that every test image is seen with."""
ROWS = 256  # of a forward without gradients


def build_pipeline(family: str, recipe: Recipe, classes: tuple[str, ...]) -> ClassPipeline:
    """Networks with random weights; a ddpm has one label more than there are classes, and the noise schedule of Ho et al. 2020."""
    if family == "cvae":
        return ClassPipeline(family, classes, {"vae": CVAE(classes=len(classes), **recipe.network)})
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True)
    return ClassPipeline(family, classes, {"unet": UNet2DModel(num_class_embeds=len(classes) + 1, **recipe.network), "scheduler": scheduler})


def seeded_pipeline(family: str, recipe: Recipe, classes: tuple[str, ...], seed: int) -> ClassPipeline:
    """:func:`build_pipeline` with weights of a seed; the global generator is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_pipeline(family, recipe, classes)


def encoded(base: Base, labels: Tensor) -> Encoded:
    """One-hot rows (N, 1, K) of labels (N,); of a negative label, no class, zeros."""
    rows = F.one_hot(labels.clamp(min=0), len(base.classes)) * (labels >= 0)[:, None]
    return Encoded(rows[:, None].to(base.device, base.dtype))


def training_loss(base: Base, data: ClassImages, recipe: Recipe) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The mean of the base's objective over examples, some of them mirrored and some without their class, as the recipe says."""
    labels = torch.from_numpy(data.labels)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        x, own = base.latents_of(data.images[rows.numpy()]), labels[rows]
        if recipe.flips:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
            x = torch.where(mirrored.to(x.device), x.flip(-1), x)
        if recipe.label_dropout:
            own = torch.where(torch.rand(len(x), generator=generator) < recipe.label_dropout, -1, own)
        return base.loss(x, encoded(base, own), generator).mean()

    return loss


@torch.no_grad()
def mean_objective(base: Base, data: ClassImages) -> float:
    """The mean of the objective over images with their classes: of a cvae -ELBO in nats, of a ddpm the squared error of the noise."""
    generator, total = torch.Generator().manual_seed(0), 0.0
    labels = torch.from_numpy(data.labels)
    for start in range(0, len(data), ROWS):
        x, c = base.latents_of(data.images[start : start + ROWS]), encoded(base, labels[start : start + ROWS])
        for _ in range(TEST_DRAWS):
            total += float(base.loss(x, c, generator).sum()) / TEST_DRAWS
    return total / len(data)


def train_generator(
    family: str, recipe: Recipe, data: ClassImages, folder: Path, *, steps: int, key: str, seed: int, device: str, name: str, check: Callable[[], None]
) -> float:
    """Trains a cvae or ddpm and writes its folder; goes on from ``training.pt`` in it.

    Returns:
        The running mean of the training loss.
    """
    torch.manual_seed(seed)
    base = base_from_pipeline(build_pipeline(family, recipe, data.classes).to(device), name)
    loss = training_loss(base, data, recipe)
    weights, value = fit(base.network, loss, recipe, len(data), steps=steps, state=folder / "training.pt", key=key, seed=seed, name=name, check=check)
    base.network.load_state_dict(weights)
    nn.Module.to(base.network, "cpu", torch.float16 if recipe.precision == "fp16" else torch.float32)  # diffusers' own warns of nothing
    base.pipeline.save_pretrained(folder)
    return value


def tested(folder: Path, data: ClassImages, device: str) -> float:
    """:func:`mean_objective` of a written folder, as it is loaded."""
    return mean_objective(base_from_pipeline(load_pipeline(str(folder)).to(device), folder.name), data)
