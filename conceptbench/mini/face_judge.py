"""The mini tier's face identifier: boxes from its detector, identities from its classifier."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.core.files import key_of
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.mini.judges import LICENCE, MOST_DETECTIONS, ROWS, SOURCE, MiniClassifier, MiniDetector, to_input
from conceptbench.mini.world import IMAGE_SIZE
from conceptbench.models.rows import in_blocks

FLOOR = 0.3
"""Detector scores above it are faces: on drawings, all persons are found, and 0.2 % of the other pictures have a false face."""
REACH = 1.8
"""Half the side of the window around one face of several, in radii of the face: hair and shirt tell persons apart, too."""
DROP = 0.2
"""How far the window's centre lies below the face's, in radii."""


def face_rows(detections: NDArray[np.float32], face: int, floor: float) -> NDArray[np.float32]:
    """The faces among detections.

    Args:
        detections: (N, M, 6) score, label index, x0, y0, x1, y1.
        face: label index of a face.
        floor: a score must be above it.

    Returns:
        (N, M, 5) score, x0, y0, x1, y1 by falling score; unused rows are 0.
    """
    counted = (detections[..., 1] == face) & (detections[..., 0] > floor)
    rows = np.where(counted[..., None], detections[..., [0, 2, 3, 4, 5]], np.float32(0))
    order = np.argsort(-rows[..., 0], axis=1, kind="stable")
    return np.take_along_axis(rows, order[..., None], 1)


def windows(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where to look for the identity of each face: the whole picture if the face is alone in it, else a square around it.

    The square is moved into the picture where it would leave it.

    Args:
        faces: (N, M, 5) of :func:`face_rows`.

    Returns:
        (N, M, 3): centre x, y and half the side, as shares of the picture.
    """
    half = np.minimum(REACH * (faces[..., 3] - faces[..., 1]) / 2, np.float32(0.5))
    x, y = (faces[..., 1] + faces[..., 3]) / 2, (faces[..., 2] + faces[..., 4]) / 2 + DROP * (faces[..., 4] - faces[..., 2]) / 2
    around = np.stack([np.clip(x, half, 1 - half), np.clip(y, half, 1 - half), half], -1)
    alone = (faces[..., 0] > 0).sum(1) == 1
    return np.where(alone[:, None, None], np.float32(0.5), around).astype(np.float32)


def looked_through(x: Tensor, window: Tensor) -> Tensor:
    """The pictures seen through windows, at the judges' size.

    Args:
        x: (K, 3, H, W).
        window: (K, 3) of :func:`windows`.

    Returns:
        (K, 3, 32, 32), bilinear.
    """
    centre, half = 2 * window[:, :2] - 1, 2 * window[:, 2]
    theta = torch.zeros(len(x), 2, 3, dtype=x.dtype)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half, half, centre
    grid = F.affine_grid(theta, [len(x), 3, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


class MiniFaces:
    """Faces and whose they are. The identity head was trained on pictures of one person each, and so is the most reliable for those."""

    def __init__(self) -> None:
        self.detector, self.classifier = MiniDetector(), MiniClassifier()
        names = self.classifier.card.labels["identity"]
        digest = key_of({"detector": self.detector.card.sha256, "classifier": self.classifier.card.sha256})
        look = f"32 px, [-1, 1]; faces above {FLOOR:g}; identity of the whole picture if it has one face, else of {REACH:g} radii around each, {DROP:g} lower"
        self.card = JudgeCard("mini-faces", "faces", digest, SOURCE, LICENCE, look, {"identity": names})
        self._face = self.detector.card.numbered().index("face/face")

    def _identities(self, x: Tensor, window: Tensor) -> Tensor:
        return self.classifier.network(looked_through(x, window))["identity"].softmax(-1)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``faces`` (N, 8, 5): score, box in [0, 1], by falling score; ``identities`` (N, 8, labels): probabilities. Unused rows are 0."""
        faces = face_rows(self.detector(images)["detections"], self._face, FLOOR)
        identities = np.zeros((len(images), MOST_DETECTIONS, len(self.card.labels["identity"])), np.float32)
        used = faces[..., 0] > 0
        if used.any():
            picture = torch.from_numpy(np.nonzero(used)[0])
            identities[used] = in_blocks(self._identities, ROWS, to_input(images)[picture], torch.from_numpy(windows(faces)[used])).numpy()
        faces[..., 1:] = faces[..., 1:].clip(0, 1)
        return {"faces": faces, "identities": identities}
