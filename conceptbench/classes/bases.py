"""Class-conditional models as bases: the digits' come with the package, the others are trained on this machine."""

from __future__ import annotations

from pathlib import Path

from conceptbench.classes.datasets import data_folder
from conceptbench.core.errors import MissingWeightsError
from conceptbench.models.base import Base
from conceptbench.models.families import base_from_pipeline, load_pipeline

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = ("digits-cvae", "digits-ddpm", "digits-classifier")
"""Models that come with the package."""


def model_folder(name: str, index: str) -> Path:
    """The folder of a model ``DATA-MODEL``: in the package, or in ``models`` of the data folder.

    Args:
        name: the model.
        index: a file that is there once it is trained.

    Raises:
        MissingWeightsError: it is not there; the hint is the command that trains it.
    """
    folder = WEIGHTS / name if name in SHIPPED else data_folder() / "models" / name
    if not (folder / index).exists():
        data, _, model = name.partition("-")
        where = f" --output {folder}" if name in SHIPPED else " --download"
        raise MissingWeightsError(f"{name} is not in {folder}", f"train it: conceptbench train {model} {data}{where}")
    return folder


def _load(name: str) -> Base:
    folder = model_folder(name, "model_index.json")
    return base_from_pipeline(load_pipeline(str(folder)), name, tier="mini" if name in SHIPPED else "paper")


def digits_cvae() -> Base:
    """A conditional variational autoencoder of 8-pixel digits."""
    return _load("digits-cvae")


def digits_ddpm() -> Base:
    """A DDPM of 8-pixel digits."""
    return _load("digits-ddpm")


def mnist_cvae() -> Base:
    """The paper's conditional variational autoencoder of MNIST."""
    return _load("mnist-cvae")


def cifar10_ddpm() -> Base:
    """The paper's DDPM of CIFAR-10."""
    return _load("cifar10-ddpm")


def stl10_ddpm() -> Base:
    """The paper's DDPM of STL-10 at 64 pixels."""
    return _load("stl10-ddpm")
