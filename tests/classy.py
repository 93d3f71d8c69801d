"""Tiny class-conditional models with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel

from conceptbench.models.base import Base
from conceptbench.models.class_pipeline import ClassPipeline
from conceptbench.models.cvae import CVAE
from conceptbench.models.families import base_from_pipeline

CLASSES = ("0", "1", "2")


def cvae(classes=CLASSES, channels=1, seed=0) -> ClassPipeline:
    torch.manual_seed(seed)
    return ClassPipeline("cvae", classes, {"vae": CVAE(size=8, channels=channels, classes=len(classes), hidden=[16, 12], latent=4)})


def ddpm(classes=CLASSES, channels=1, seed=0) -> ClassPipeline:
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=len(classes) + 1,
        resnet_time_scale_shift="scale_shift",
    )
    return ClassPipeline("ddpm", classes, {"unet": unet, "scheduler": DDPMScheduler()})


def base(family: str, **options) -> Base:
    return base_from_pipeline({"cvae": cvae, "ddpm": ddpm}[family](**options), f"tiny-{family}", tier="mini")


def folder(family: str, path: Path, **options) -> Path:
    {"cvae": cvae, "ddpm": ddpm}[family](**options).save_pretrained(path)
    return path
