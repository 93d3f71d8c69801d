"""One training from beginning to end: data, weights, what was measured, and a description of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conceptbench.classes.classifiers import CARD
from conceptbench.classes.datasets import ClassImages, load_images
from conceptbench.classes.recipes import Recipe, recipe_of
from conceptbench.classes.training.classifier import accuracy, train_classifier
from conceptbench.classes.training.generators import tested, train_generator
from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of, pretty_json, write_text
from conceptbench.models.class_pipeline import INDEX

DESCRIPTION = "training.json"


@dataclass(frozen=True)
class Training:
    """What is asked for.

    Attributes:
        model: of :data:`~conceptbench.classes.recipes.RECIPES`.
        data: name of the data set.
        without: classes whose images are left out.
        steps: of the optimiser, where it is not the recipe's number.
        seed: of all draws.
        recipe: the recipe, where it is not the usual one.
    """

    model: str
    data: str
    without: tuple[str, ...] = ()
    steps: int | None = None
    seed: int = 0
    recipe: Recipe | None = None

    @property
    def used(self) -> Recipe:
        """The recipe."""
        return self.recipe or recipe_of(self.model, self.data)

    def key(self) -> str:
        """What weights after a number of steps depend on."""
        return key_of({"model": self.model, "data": self.data, "without": sorted(set(self.without)), "seed": self.seed, "recipe": self.used})


def train(
    training: Training, folder: Path, *, data_folder: Path | None = None, download: bool = False, device: str = "cpu", check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Trains a model and writes its folder, or goes on where it was stopped.

    Args:
        training: what is asked for.
        folder: of the model.
        data_folder: see :func:`~conceptbench.classes.datasets.data_folder`.
        download: fetch a data set that is not there.
        device: where to train.
        check: called after each step; raises StoppedError to stop.

    Returns:
        What is written to ``training.json``: among it ``loss`` (running mean in training) and, on the test images of the classes that
        it was trained on, ``accuracy`` of a classifier, ``negative_elbo`` of a cvae in nats an image, ``noise_error`` of a ddpm: squared error
        of the noise, summed over an image's values.

    Raises:
        UserInputError: unknown names, no data, or the folder has a finished model or another training.
    """
    recipe = training.used
    index = CARD if training.model == "classifier" else INDEX
    if (folder / index).exists() and not (folder / "training.pt").exists():
        raise UserInputError(f"{folder} already has a trained model", "choose another --output, or delete the folder")
    images = load_images(training.data, recipe.split, data_folder, download).without(training.without)
    test = load_images(training.data, "test", data_folder).without(training.without)
    steps = training.steps or recipe.steps_for(len(images))
    with torch.random.fork_rng(devices=[d for d in [torch.device(device)] if d.type == "cuda"]):
        loss, measured = _trained(training, recipe, images, test, folder, steps, device, check)
    description = {
        "model": training.model,
        "data": training.data,
        "classes": images.classes,
        "without": sorted(set(training.without)),
        "seed": training.seed,
        "steps": steps,
        "images": len(images),
        "test_images": len(test),
        "loss": loss,
        **measured,
        "recipe": recipe,
    }
    text = pretty_json(description)
    if training.model == "classifier":
        text = pretty_json({**json.loads((folder / CARD).read_text()), **description})
    write_text(folder / (CARD if training.model == "classifier" else DESCRIPTION), text)
    (folder / "training.pt").unlink(missing_ok=True)
    result: dict[str, Any] = json.loads(text)
    return result


def _trained(
    training: Training, recipe: Recipe, images: ClassImages, test: ClassImages, folder: Path, steps: int, device: str, check: Callable[[], None]
) -> tuple[float, dict[str, float]]:
    """The running mean of the loss, and what was measured on the test images."""
    options: dict[str, Any] = {"steps": steps, "key": training.key(), "seed": training.seed, "device": device, "check": check}
    options["name"] = f"{training.data}-{training.model}"
    if training.model == "classifier":
        return train_classifier(recipe, images, folder, **options), {"accuracy": accuracy(folder, test, device)}
    loss = train_generator(training.model, recipe, images, folder, **options)
    return loss, {"negative_elbo" if training.model == "cvae" else "noise_error": tested(folder, test, device)}


def summary(description: dict[str, Any]) -> Sequence[str]:
    """What was measured, in words."""
    kind = {
        "accuracy": "accuracy {:.4f}",
        "negative_elbo": "-ELBO {:.3f} nats an image",
        "noise_error": "squared error of the noise {:.4f} an image",
    }
    measured = next(text.format(description[k]) for k, text in kind.items() if k in description)
    return (
        f"{description['model']} on {description['data']}: {description['steps']} steps on {description['images']} images, loss {description['loss']:.4g}",
        f"{description['test_images']} test images: {measured}",
    )
