"""Training of the classifiers that judge class-conditional models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from conceptbench.classes.classifiers import CARD, WEIGHTS, probabilities, read_classifier
from conceptbench.classes.datasets import ClassImages
from conceptbench.classes.networks import ImageClassifier, build_classifier
from conceptbench.classes.recipes import Recipe
from conceptbench.classes.training.loop import fit
from conceptbench.core.files import atomic_path, pretty_json, write_text
from conceptbench.judges.cache import cached_weights
from conceptbench.judges.perceptual import to_range

PRETRAINED = "IMAGENET1K_V1"


def fresh_classifier(recipe: Recipe, classes: int, name: str) -> ImageClassifier:
    """A classifier with random weights, or for a ResNet with those that torchvision trained on ImageNet.

    Raises:
        MissingWeightsError: they are not in torch's cache.
    """
    network = build_classifier(recipe.network, classes)
    architecture = recipe.network["architecture"]
    if architecture != "cnn":
        _, state = cached_weights(name, architecture, PRETRAINED)
        network.trunk.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    return network


def train_classifier(
    recipe: Recipe, data: ClassImages, folder: Path, *, steps: int, key: str, seed: int, device: str, name: str, check: Callable[[], None]
) -> float:
    """Trains a classifier by cross entropy and writes its folder; goes on from ``training.pt`` in it.

    Returns:
        The running mean of the training loss.
    """
    torch.manual_seed(seed)
    network = fresh_classifier(recipe, len(data.classes), name).to(device)
    labels = torch.from_numpy(data.labels)

    def loss(rows: Tensor, _generator: torch.Generator) -> Tensor:
        return F.cross_entropy(network(to_range(data.images[rows.numpy()]).to(device)), labels[rows].to(device))

    weights, value = fit(network, loss, recipe, len(data), steps=steps, state=folder / "training.pt", key=key, seed=seed, name=name, check=check)
    dtype = torch.float16 if recipe.precision == "fp16" else torch.float32
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({k: (v.to("cpu", dtype) if v.is_floating_point() else v.cpu()).contiguous() for k, v in weights.items()}, temporary)
    write_text(folder / CARD, pretty_json({"network": recipe.network, "classes": data.classes}))
    return value


def accuracy(folder: Path, data: ClassImages, device: str) -> float:
    """The share of images that the classifier of a written folder gives to their class, as it is loaded."""
    network, _ = read_classifier(folder)
    return float((probabilities(network.to(device), data.images).argmax(1) == data.labels).mean())
