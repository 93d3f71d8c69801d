"""What is trained on which data set, and how: the paper's numbers (Heng and Soh 2023, appendix B), and small ones for the digits."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from conceptbench.classes.datasets import Split
from conceptbench.core.errors import unknown_name
from conceptbench.core.schemas import Strict


class Recipe(Strict):
    """How a model is trained.

    Attributes:
        network: the network's options: of :class:`~conceptbench.models.cvae.CVAE`, of diffusers' UNet2DModel beside what all have, or for a
            classifier ``architecture`` and its options.
        steps: of the optimiser (Adam), or
        epochs: passes over the images.
        batch: images a step.
        lr: learning rate.
        ema: decay of the average of the weights that is kept; 0: the last weights are.
        clip: largest norm of the gradient.
        label_dropout: share of the examples that are shown without their class, for classifier-free guidance.
        flips: mirror every other image.
        split: images that it learns from.
        precision: of the weights in the folder.
    """

    network: dict[str, Any]
    steps: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    clip: float | None = None
    label_dropout: float = Field(default=0.0, ge=0, le=1)
    flips: bool = False
    split: Split = "train"
    precision: Literal["fp16", "fp32"] = "fp32"

    def steps_for(self, images: int) -> int:
        """Optimiser steps for so many images."""
        return self.steps or (self.epochs or 1) * math.ceil(images / self.batch)


def unet(size: int, channels: int, widths: tuple[int, ...], attention: int, **options: Any) -> dict[str, Any]:
    """The UNet of Ho et al. 2020 in diffusers' terms: a level for each width, attention at ``attention`` pixels a side and in the middle.

    ``resnet_time_scale_shift`` makes the label scale and shift every block (FiLM, Perez et al. 2018) together with the time; the authors'
    code has separate layers for the two.
    """
    down = ["AttnDownBlock2D" if size >> level == attention else "DownBlock2D" for level in range(len(widths))]
    up = ["AttnUpBlock2D" if kind.startswith("Attn") else "UpBlock2D" for kind in reversed(down)]
    return {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": list(widths),
        "down_block_types": down,
        "up_block_types": up,
        "resnet_time_scale_shift": "scale_shift",
        **options,
    }


_HO: dict[str, Any] = {
    "layers_per_block": 2,
    "dropout": 0.1,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
_RESNET34 = Recipe(network={"architecture": "resnet34"}, epochs=20, batch=64, lr=1e-4)
"""Epochs and network are the paper's; batch and learning rate are not stated there."""

RECIPES: dict[str, dict[str, Recipe]] = {
    "cvae": {
        "digits": Recipe(network={"size": 8, "hidden": [512, 256], "latent": 8}, steps=12_000, batch=128, lr=5e-4, ema=0.999, precision="fp16"),
        "mnist": Recipe(network={"size": 28, "hidden": [512, 256], "latent": 8}, steps=100_000, batch=256, lr=1e-4),
    },
    "ddpm": {
        "digits": Recipe(
            network=unet(8, 1, (24, 48), 4, layers_per_block=1, norm_num_groups=8),
            steps=5000,
            batch=32,
            lr=1e-3,
            ema=0.999,
            clip=1.0,
            label_dropout=0.1,
            precision="fp16",
        ),
        "cifar10": Recipe(
            network=unet(32, 3, (128, 256, 256, 256), 16, **_HO),
            steps=800_000,
            batch=128,
            lr=1e-4,
            ema=0.9999,
            clip=1.0,
            label_dropout=0.1,
            flips=True,
        ),
        "stl10": Recipe(  # the paper trains it on all labelled images
            network=unet(64, 3, (128, 256, 256, 256, 512), 16, **_HO),
            steps=250_000,
            batch=64,
            lr=2e-4,
            ema=0.9999,
            clip=1.0,
            label_dropout=0.1,
            flips=True,
            split="all",
        ),
    },
    "classifier": {
        "digits": Recipe(network={"architecture": "cnn", "size": 8, "widths": [24, 48], "features": 96}, epochs=60, batch=64, lr=1e-3, precision="fp16"),
        "mnist": Recipe(network={"architecture": "cnn", "size": 28, "widths": [32, 64], "features": 128}, epochs=20, batch=64, lr=1e-4),
        "cifar10": _RESNET34,
        "stl10": _RESNET34,
    },
}
"""Model -> data set -> recipe."""


def recipe_of(model: str, data: str) -> Recipe:
    """The recipe of a model for a data set.

    Raises:
        UserInputError: there is no such model, or it has no recipe for the data set.
    """
    if model not in RECIPES:
        raise unknown_name("model", model, RECIPES)
    if data not in RECIPES[model]:
        raise unknown_name(f"data set for {model}", data, RECIPES[model])
    return RECIPES[model][data]
