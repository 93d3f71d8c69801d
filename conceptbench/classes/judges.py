"""Judges of class-conditional models: classifiers of the data sets that the models were trained on, and their features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from conceptbench.classes.bases import model_folder
from conceptbench.classes.classifiers import CARD, WEIGHTS, features, probabilities, read_classifier
from conceptbench.core.errors import MissingWeightsError
from conceptbench.core.files import sha256_file
from conceptbench.core.judge import JudgeCard, JudgeRole, Outputs

HEADS = {"digits": "digit", "mnist": "digit", "cifar10": "object", "stl10": "object"}
"""Data set -> the head of its labels: ``digit/3``, ``object/airplane``."""
SOURCES = {
    "digits": ("the digits of scikit-learn (Alpaydin and Kaynak 1998, UCI)", "Apache-2.0; images CC BY 4.0"),
    "mnist": ("MNIST", "the user's own training"),
    "cifar10": ("CIFAR-10", "the user's own training, from torchvision's weights (BSD) for ImageNet"),
    "stl10": ("STL-10", "the user's own training, from torchvision's weights (BSD) for ImageNet"),
}


class ClassJudge:
    """A classifier of a data set, or its features.

    Args:
        data: name of the data set.
        role: ``classifier``: probabilities over the classes; ``features``: outputs of the penultimate layer.

    Raises:
        MissingWeightsError: the classifier is not trained, or knows other classes than the whole data set's.
    """

    def __init__(self, data: str, role: JudgeRole) -> None:
        name = f"{data}-classifier"
        folder = model_folder(name, CARD)
        self.network, card = read_classifier(folder)
        if card.get("without"):
            raise MissingWeightsError(f"the classifier in {folder} has not seen {', '.join(card['without'])}", "train it again, without --without")
        self.head, self.classes = HEADS[data], tuple(card["classes"])
        source, licence = SOURCES[data]
        labels = {self.head: self.classes} if role == "classifier" else {}
        layer = "" if role == "classifier" else "; penultimate layer"
        preprocessing = f"{self.network.size} px bilinear, [-1, 1]{layer}"
        id = name if role == "classifier" else f"{data}-features"
        self.card = JudgeCard(
            id, role, sha256_file(folder / WEIGHTS), f"trained on {source}: conceptbench train classifier {data}", licence, preprocessing, labels
        )

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Probabilities (N, classes) of the one head, or ``features`` (N, D) float32, not negative."""
        if self.card.role == "features":
            return {"features": features(self.network, images)}
        return {self.head: probabilities(self.network, images)}


def digits_classifier() -> ClassJudge:
    """Which class of the digits an image shows."""
    return ClassJudge("digits", "classifier")


def mnist_classifier() -> ClassJudge:
    """Which class of MNIST an image shows."""
    return ClassJudge("mnist", "classifier")


def cifar10_classifier() -> ClassJudge:
    """Which class of CIFAR-10 an image shows."""
    return ClassJudge("cifar10", "classifier")


def stl10_classifier() -> ClassJudge:
    """Which class of STL-10 an image shows."""
    return ClassJudge("stl10", "classifier")


def digits_features() -> ClassJudge:
    """The penultimate layer of the classifier of the digits."""
    return ClassJudge("digits", "features")


def mnist_features() -> ClassJudge:
    """The penultimate layer of the classifier of MNIST."""
    return ClassJudge("mnist", "features")


def cifar10_features() -> ClassJudge:
    """The penultimate layer of the classifier of CIFAR-10."""
    return ClassJudge("cifar10", "features")


def stl10_features() -> ClassJudge:
    """The penultimate layer of the classifier of STL-10."""
    return ClassJudge("stl10", "features")
