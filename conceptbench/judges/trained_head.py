"""A linear layer trained on a judge's features: SepME's style classifier, a judge made for one base.

SepME (sec. 4.1) trains the last layer of a ResNet-18 on 1000 images of each of nine artists and of the empty prompt, 70 % of
them, for 20 epochs of SGD with a cyclic learning rate up to .01. Its code leaves the batch-norm statistics of the trunk in
training mode, so that they drift; here the trunk stays as it is, and each image is looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of, sha256_bytes
from conceptbench.core.judge import Judge, JudgeCard, Outputs
from conceptbench.core.trained_judges import HeadTraining
from conceptbench.models.rows import in_blocks
from conceptbench.models.sampling import threads

ROWS = 64  # of every forward, see conceptbench.models.rows
SHOWN = 8  # characters of the checksum in the id


@dataclass(frozen=True)
class TrainedHead:
    """A linear layer over features, and how it did on images that it was not trained on.

    Attributes:
        classes: C labels in the order of its outputs.
        weights: (C, D) float32.
        bias: (C,) float32.
        confusion: (C, C) counts of the held-out images: true class by answer.
        epoch: after which the layer was kept, from 1.
    """

    classes: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    confusion: NDArray[np.int64]
    epoch: int

    @property
    def accuracy(self) -> float:
        """The share of held-out images that it calls right, in [0, 1]."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def sha256(self) -> str:
        """Of labels, weights and bias."""
        arrays = [sha256_bytes(np.ascontiguousarray(a, "<f4").tobytes()) for a in (self.weights, self.bias)]
        return key_of({"classes": self.classes, "arrays": arrays, "shape": self.weights.shape})


def split(numbers: Mapping[str, int], held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which images train and which test, drawn by class.

    Args:
        numbers: label -> how many images, at least 2; images are numbered through all classes in this order.
        held_out: the share that tests, in (0, 1); of each class at least one image, and not all.
        generator: of the draw.

    Returns:
        Numbers of the training and of the held-out images.
    """
    training, testing, start = [], [], 0
    for n in numbers.values():
        order = start + torch.randperm(n, generator=generator)
        tests = min(n - 1, max(1, round(held_out * n)))
        testing.append(order[:tests])
        training.append(order[tests:])
        start += n
    return torch.cat(training), torch.cat(testing)


def train_head(features: Mapping[str, NDArray[np.float32]], training: HeadTraining) -> TrainedHead:
    """Trains a linear layer with cross-entropy: the same bytes for the same features and settings.

    SGD whose learning rate is one triangle over all steps, 0 to ``training.lr`` and back, while torch's cyclic schedule moves the
    momentum against it, .9 to .8 and back. In float64 on one thread.

    Args:
        features: label -> (n, D), finite, of at least two images each; at least two labels.
        training: the settings.

    Raises:
        UserInputError: features are not like that.
    """
    _check(features)
    generator = torch.Generator().manual_seed(training.seed)
    x = torch.from_numpy(np.concatenate(list(features.values()))).double()
    y = torch.repeat_interleave(torch.arange(len(features)), torch.tensor([len(f) for f in features.values()]))
    with threads(1):
        train, test = split({label: len(f) for label, f in features.items()}, training.held_out, generator)
        layer, confusion, epoch = _fitted((x[train], y[train]), (x[test], y[test]), len(features), training, generator)
    return TrainedHead(tuple(features), layer[0].float().numpy(), layer[1].float().numpy(), confusion.numpy(), epoch)


def _check(features: Mapping[str, NDArray[np.float32]]) -> None:
    if len(features) < 2:
        raise UserInputError(f"a classifier needs at least two classes, and has {len(features)}", "add classes to the judge")
    width = {f.shape[1:] for f in features.values()}
    for label, f in features.items():
        if f.ndim != 2 or len(width) > 1:
            raise UserInputError(f"the features of class {label!r} have the shape {f.shape}", "all classes need (images, features) of one width")
        if len(f) < 2:
            raise UserInputError(f"class {label!r} has {len(f)} image(s): one must train and one must test", "give at least 2")
        if not np.isfinite(f).all():
            raise UserInputError(f"the features of class {label!r} are not all finite", "look at its images")


Data = tuple[Tensor, Tensor]
"""Features (N, D) and classes (N,)."""


def _fitted(train: Data, test: Data, classes: int, training: HeadTraining, generator: torch.Generator) -> tuple[Data, Tensor, int]:
    """The layer that is kept (weights, bias), its confusion matrix on the held-out part, and its epoch."""
    reach = 1 / math.sqrt(train[0].shape[1])  # nn.Linear's own first values, from this generator
    layer = [nn.Parameter((2 * torch.rand(*shape, generator=generator).double() - 1) * reach) for shape in ((classes, train[0].shape[1]), (classes,))]
    steps = training.epochs * math.ceil(len(train[1]) / training.batch)
    optimiser = torch.optim.SGD(layer, lr=training.lr, momentum=0.9, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CyclicLR(optimiser, 0.0, training.lr, step_size_up=steps / 2, step_size_down=steps / 2)  # type: ignore[arg-type]
    kept: tuple[Data, Tensor, int] | None = None
    for epoch in range(1, training.epochs + 1):
        for rows in torch.randperm(len(train[1]), generator=generator).split(training.batch):
            optimiser.zero_grad()
            F.cross_entropy(F.linear(train[0][rows], layer[0], layer[1]), train[1][rows]).backward()
            optimiser.step()
            schedule.step()
        confusion = _confusion(layer, test, classes)
        if kept is None or training.keep == "last" or confusion.trace() >= kept[1].trace():
            kept = (layer[0].detach().clone(), layer[1].detach().clone()), confusion, epoch
    assert kept is not None
    return kept


@torch.no_grad()
def _confusion(layer: list[nn.Parameter], test: Data, classes: int) -> Tensor:
    said = F.linear(test[0], layer[0], layer[1]).argmax(1)
    return torch.bincount(test[1] * classes + said, minlength=classes**2).reshape(classes, classes)


def check_trunk(id: str, trunk: Judge) -> None:
    """Refuses a trunk that gives no features.

    Raises:
        UserInputError: it has another role.
    """
    if trunk.card.role != "features":
        raise UserInputError(f"judge {id!r} needs a trunk of role 'features', and {trunk.card.id!r} is a {trunk.card.role}", "see: conceptbench list judges")


class HeadJudge:
    """A judge of features and a layer trained on them, as one classifier.

    Args:
        id: the judge's name in its suite; the card's id is ``NAME~HASH``, with the first characters of the checksum of trunk and layer.
        trunk: of role ``features``.
        head: the name of the head.
        layer: what was trained on the trunk's features.
        note: what must be known about its numbers; part of the card's source.

    Raises:
        UserInputError: the trunk gives no features.
    """

    def __init__(self, id: str, trunk: Judge, head: str, layer: TrainedHead, note: str = "") -> None:
        check_trunk(id, trunk)
        self.trunk, self.head, self.layer = trunk, head, layer
        self.weights, self.bias = torch.tensor(layer.weights), torch.tensor(layer.bias)
        tested = int(layer.confusion.sum())
        source = f"linear layer on {trunk.card.id} ({trunk.card.source}), {100 * layer.accuracy:.1f} % right on {tested} held-out images of its base"
        source += f". {note}" if note else ""
        digest = key_of({"trunk": trunk.card.sha256, "layer": layer.sha256})
        self.card = JudgeCard(f"{id}~{digest[:SHOWN]}", "classifier", digest, source, trunk.card.licence, trunk.card.preprocessing, {head: layer.classes})

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Probabilities (N, C) float32 of the one head."""
        return self.from_features(self.trunk(images)["features"])

    @torch.inference_mode()
    def from_features(self, features: NDArray[np.float32]) -> Outputs:
        """The same from the trunk's features (N, D)."""
        x = torch.from_numpy(features).float()
        return {self.head: in_blocks(lambda rows: F.linear(rows, self.weights, self.bias), ROWS, x).softmax(-1).numpy()}
