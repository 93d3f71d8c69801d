"""MTCNN, a finder of faces in three stages: windows at several sizes, refined twice.

Zhang et al. 2016, as facenet's port to TensorFlow and GIPHY's detector run it. Coordinates in this module are the original's:
pixels counted from 1, both ends included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from conceptbench.judges.mtcnn_networks import Stage, load_stage, network_input, output_network, proposal_network, refining_network
from conceptbench.models.rows import in_blocks

Boxes = NDArray[np.float64]
"""(K, 4 or more) x1, y1, x2, y2 and then the score and others."""
MINIMUM, CELL, STRIDE = 20, 12, 2  # px of the smallest face; window and stride of the first network
FACTOR = 0.709  # between neighbouring sizes of the pyramid
THRESHOLDS = (0.6, 0.7, 0.7)
REFINED, FINAL = 24, 48  # px, input of the second and third network
ROWS = 32
FILES = ("det1.npy", "det2.npy", "det3.npy")


def pyramid(height: int, width: int) -> list[float]:
    """The scales at which the first network looks: a face of the smallest size fills its window at the first one."""
    scales: list[float] = []
    first = CELL / MINIMUM
    side = min(height, width) * first
    while side >= CELL:
        scales.append(first * FACTOR ** len(scales))
        side *= FACTOR
    return scales


def proposed(maps: NDArray[np.float32], scale: float, threshold: float) -> Boxes:
    """The windows in which the first network sees a face.

    Args:
        maps: (5, H, W): the probability of a face, and the shifts.
        scale: of the image that the network saw.
        threshold: a probability equal to it passes.

    Returns:
        (K, 9) box, score, shifts; column by column. Where exactly one window passes, the original takes its shifts from the
        column on the other side, a slip from Matlab; so does this, because all published numbers have it.
    """
    x, y = np.nonzero(maps[0].transpose() >= threshold)
    from_column = maps.shape[2] - 1 - x if len(x) == 1 else x
    ends = [np.fix((STRIDE * at + end) / scale) for end in (1, CELL) for at in (x, y)]
    return np.stack([*ends, maps[0, y, x], *maps[1:, y, from_column]], 1, dtype=np.float64)


def kept(boxes: Boxes, most: float, beside: Literal["union", "smaller"]) -> NDArray[np.intp]:
    """Non-maximum suppression.

    Args:
        boxes: (K, 5 or more).
        most: boxes that overlap a better one by more than this are dropped.
        beside: what the intersection is divided by: the union, or the smaller of the two boxes.

    Returns:
        Indices of the boxes that stay, by falling score.
    """
    x1, y1, x2, y2, score = boxes[:, :5].T
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    left, stay = np.argsort(score, kind="stable"), []
    while len(left):
        best, left = left[-1], left[:-1]
        stay.append(best)
        width = np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left]) + 1
        height = np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left]) + 1
        both = np.maximum(width, 0) * np.maximum(height, 0)
        whole = area[best] + area[left] - both if beside == "union" else np.minimum(area[best], area[left])
        left = left[both <= most * whole]
    return np.array(stay, np.intp)


def shifted(boxes: Boxes, shifts: NDArray[Any], *, inclusive: bool = True) -> Boxes:
    """Moves the ends of boxes by shares of their size; the first stage does not count both ends in it."""
    size = boxes[:, 2:4] - boxes[:, 0:2] + inclusive
    return np.concatenate([boxes[:, :4] + shifts * np.tile(size, 2), boxes[:, 4:]], 1)


def squared(boxes: Boxes) -> Boxes:
    """Makes boxes square around the same centre, with the longer side."""
    size = boxes[:, 2:4] - boxes[:, 0:2]
    side = size.max(1, keepdims=True)
    start = boxes[:, :2] + size * 0.5 - side * 0.5
    return np.concatenate([start, start + side, boxes[:, 4:]], 1)


def whole_pixels(boxes: Boxes, height: int, width: int) -> Boxes:
    """Cuts fractions off, and drops boxes that have no pixel of the image (the original stops with an error there)."""
    boxes = np.concatenate([np.fix(boxes[:, :4]), boxes[:, 4:]], 1)
    x1, y1, x2, y2 = boxes[:, :4].T
    return boxes[(np.minimum(x2, width) >= np.maximum(x1, 1)) & (np.minimum(y2, height) >= np.maximum(y1, 1))]


def crop(image: NDArray[np.uint8], box: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """A box of whole pixels, black where it leaves the image, reduced by area to (size, size, 3)."""
    x1, y1, x2, y2 = (int(v) for v in box[:4])
    height, width = image.shape[:2]
    out = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3))
    top, left, bottom, right = max(y1, 1), max(x1, 1), min(y2, height), min(x2, width)
    out[top - y1 : bottom - y1 + 1, left - x1 : right - x1 + 1] = image[top - 1 : bottom, left - 1 : right]
    return np.asarray(cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA))


class MTCNN:
    """Finds faces of at least 20 px.

    Args:
        folder: with det1.npy, det2.npy and det3.npy.

    Raises:
        UserInputError: a file is not what it should be.
    """

    def __init__(self, folder: Path) -> None:
        made: tuple[Callable[[], Stage], ...] = (proposal_network, refining_network, output_network)
        self.first, self.second, self.third = (load_stage(make(), folder / name) for make, name in zip(made, FILES, strict=True))

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """Faces of one image (H, W, 3) uint8: (K, 5) box and score above 0.7, by falling score; ends may lie outside the image."""
        height, width = image.shape[:2]
        boxes = whole_pixels(self._proposals(image), height, width)
        boxes, shifts = _looked_at(self.second, image, boxes, REFINED, THRESHOLDS[1])
        stay = kept(boxes, 0.7, "union")
        boxes = whole_pixels(squared(shifted(boxes[stay], shifts[stay])), height, width)
        boxes, shifts = _looked_at(self.third, image, boxes, FINAL, THRESHOLDS[2])
        boxes = shifted(boxes, shifts)
        return boxes[kept(boxes, 0.7, "smaller")]

    def _proposals(self, image: NDArray[np.uint8]) -> Boxes:
        found = [np.empty((0, 9))]
        for scale in pyramid(*image.shape[:2]):
            size = math.ceil(image.shape[1] * scale), math.ceil(image.shape[0] * scale)
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            boxes = proposed(self.first(network_input(small[None]))[0].numpy(), scale, THRESHOLDS[0])
            found.append(boxes[kept(boxes, 0.5, "union")])
        boxes = np.concatenate(found)
        boxes = boxes[kept(boxes, 0.7, "union")]
        return squared(shifted(boxes[:, :5], boxes[:, 5:], inclusive=False))


def _looked_at(stage: Stage, image: NDArray[np.uint8], boxes: Boxes, size: int, threshold: float) -> tuple[Boxes, NDArray[np.float32]]:
    """The boxes that a network takes for faces, with its scores (K, 5), and the shifts (K, 4) that it proposes."""
    if not len(boxes):
        return np.empty((0, 5)), np.empty((0, 4), np.float32)
    said = in_blocks(stage, ROWS, network_input(np.stack([crop(image, b, size) for b in boxes]))).numpy()
    there = said[:, 0] > threshold
    return np.concatenate([boxes[there, :4], said[there, :1]], 1), said[there, 1:]
