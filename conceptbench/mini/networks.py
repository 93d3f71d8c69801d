"""The networks of the mini tier's judges: small convolutional nets of other kinds than the generator's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conceptbench.mini.world import IDENTITIES, MARKS, STYLE_CLASSES, SUBJECT_CLASSES

DETECTIONS = (*MARKS, "face")
GRID = 8  # detector cells a side; one cell is 4 px


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation beside a projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm_a = nn.BatchNorm2d(outputs)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_b = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        return F.relu(self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))) + self.skip(x))


class Classifier(nn.Module):
    """One trunk, three answers: what is drawn, in which style, and whose face it is.

    The pooled trunk output, 192 numbers an image, is also the mini tier's feature extractor.
    """

    FEATURES = 192

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stages = nn.ModuleList([Residual(32, 48, 2), Residual(48, 96, 2), Residual(96, self.FEATURES, 2)])
        self.subject = nn.Linear(4 * self.FEATURES, len(SUBJECT_CLASSES))
        self.style = nn.Linear(self.FEATURES, len(STYLE_CLASSES))
        self.identity = nn.Linear(4 * self.FEATURES, len(IDENTITIES) + 1)  # the last: no person

    def stage_outputs(self, x: Tensor) -> list[Tensor]:
        """x: (N, 3, 32, 32) in [-1, 1]. Returns the maps after each stage, coarsest last."""
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x: (N, 3, 32, 32) in [-1, 1]. Returns logits by head and ``features`` (N, 192)."""
        last = self.stage_outputs(x)[-1]
        features = last.mean((2, 3))
        quarters = F.adaptive_avg_pool2d(last, 2).flatten(1)
        return {"subject": self.subject(quarters), "style": self.style(features), "identity": self.identity(quarters), "features": features}


class Detector(nn.Module):
    """Finds marks and faces: a score for each kind in each cell of an 8 x 8 grid, and a box."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), Residual(32, 48, 2), Residual(48, 96, 2), Residual(96, 96, 1)
        )
        self.head = nn.Conv2d(96, len(DETECTIONS) + 3, 1)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -3.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, 3, 32, 32) in [-1, 1].

        Returns:
            logits (N, 5, 8, 8) for the four marks and a face, and boxes (N, 3, 8, 8): centre x, y in the cell and radius,
            the first two in cells, the last in grid widths, all through a sigmoid.
        """
        y = self.head(self.body(x))
        return y[:, : len(DETECTIONS)], torch.sigmoid(y[:, len(DETECTIONS) :])
