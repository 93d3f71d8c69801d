"""The classifiers that judge class-conditional models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from conceptbench.core.errors import unknown_name


class ImageClassifier(nn.Module):
    """Logits of classes from the features of its trunk, the penultimate layer.

    Attributes:
        trunk: (N, 3, H, W) in [-1, 1], already of the right size, to (N, D) not negative.
        head: (N, D) to (N, K).
        size: pixels a side that the trunk sees.
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int, size: int) -> None:
        super().__init__()
        self.trunk, self.head, self.size = trunk, nn.Linear(features, classes), size

    def features(self, x: Tensor) -> Tensor:
        """(N, D) of images (N, 3, H, W) in [-1, 1]; other sizes are resized, with antialiasing if they are larger."""
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return self.trunk(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits of images (N, 3, H, W) in [-1, 1]."""
        return self.head(self.features(x))  # type: ignore[no-any-return]


class _Gray(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


def cnn(classes: int, size: int, widths: Sequence[int], features: int) -> ImageClassifier:
    """Two convolutions, a pooling and two linear layers, for gray images."""
    first, second = widths
    trunk = nn.Sequential(
        _Gray(),
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(second * (size // 2) ** 2, features),
        nn.ReLU(),
    )
    return ImageClassifier(trunk, features, classes, size)


def resnet34(classes: int) -> ImageClassifier:
    """The ResNet-34 of torchvision at 224 px with another last layer."""
    trunk = torchvision.models.resnet34()
    features = trunk.fc.in_features
    trunk.fc = nn.Identity()
    return ImageClassifier(trunk, features, classes, 224)


ARCHITECTURES = {"cnn": cnn, "resnet34": resnet34}


def build_classifier(network: dict[str, Any], classes: int) -> ImageClassifier:
    """A classifier from a recipe's ``network``: ``architecture`` and its options.

    Raises:
        UserInputError: there is no such architecture.
    """
    options = dict(network)
    architecture = options.pop("architecture", "")
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture of a classifier", architecture, ARCHITECTURES)
    return ARCHITECTURES[architecture](classes, **options)  # type: ignore[operator]
