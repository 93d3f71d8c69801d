"""The class-conditional part of the paper tier without its weights and data: small networks at random, made-up images of the real sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import paper_tier
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from conceptbench.classes import datasets, recipes
from conceptbench.classes.classifiers import CARD, WEIGHTS
from conceptbench.classes.networks import build_classifier
from conceptbench.classes.training.generators import seeded_pipeline

SIZES = {"mnist": 28, "cifar10": 32, "stl10": 64}
FAMILIES = {"mnist": "cvae", "cifar10": "ddpm", "stl10": "ddpm"}


def put_in_place(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Models and judges in the data folder, images where the harness reads them.

    Args:
        folder: the data folder.
        patch: undone by the caller.
    """
    patch.setattr(torchvision.models, "resnet34", paper_tier.basic)
    for data, family in FAMILIES.items():
        recipe = recipes.RECIPES[family][data]
        widths = [8] * len(recipe.network.get("block_out_channels", ()))
        small = {"block_out_channels": widths, "layers_per_block": 1, "norm_num_groups": 4} if widths else {"hidden": [16, 12]}
        short = recipe.model_copy(update={"network": {**recipe.network, **small}, "batch": 4})
        patch.setitem(recipes.RECIPES[family], data, short)
        patch.setitem(datasets._SOURCES, data, replace(datasets._SOURCES[data], files=(), read=_images(SIZES[data])))
        classes = datasets._SOURCES[data].classes
        _write(folder / "models" / f"{data}-{family}", folder / "models" / f"{data}-classifier", data, short, classes)


def _write(model: Path, judge: Path, data: str, recipe: recipes.Recipe, classes: tuple[str, ...]) -> None:
    if model.exists():
        return
    seeded_pipeline(FAMILIES[data], recipe, classes, 0).save_pretrained(model)
    network = recipes.RECIPES["classifier"][data].network
    torch.manual_seed(0)
    judge.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in build_classifier(network, len(classes)).state_dict().items()}, judge / WEIGHTS)
    (judge / CARD).write_text(json.dumps({"network": network, "classes": list(classes)}))


def _images(size: int):
    """A reader of five images a class."""

    def read(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
        return np.random.default_rng(0).integers(0, 256, (50, size, size, 3), np.uint8), np.arange(50) % 10

    return read
