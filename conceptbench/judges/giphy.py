"""GIPHY's celebrity detector from a folder of weights: MTCNN finds faces, and a ResNet-50 says which of 2306 persons each shows.

The detector of Selective Amnesia, MACE and HUB. Facts of the original (giphy/celeb-detection-oss): the box with a margin of
0.2 is brought to 224 x 224 by ``scipy.misc.imresize``, which was PIL's bilinear resize, without keeping the aspect; pixels in
[0, 1] without mean and deviation; a bottleneck of 256 before the classes, whose order is that of the sorted names.

Here each face has probabilities of its own. The original merges faces by a Gaussian mixture with tied covariance over their
bottlenecks, multiplies the probabilities within a cluster and makes their sum 1 again; with one face in an image there is no
difference. So this is a protocol of its own, and the card says so.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.files import key_of, sha256_file
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.judges.mtcnn import FILES, MTCNN
from conceptbench.judges.mtcnn_networks import check_names
from conceptbench.models.rows import in_blocks
from conceptbench.models.weight_files import read_weights

VARIABLE = "CONCEPTBENCH_GIPHY"
DETECTOR, RECOGNISER, LABELS = "face_detection", "face_recognition/best_model_states.pkl", "face_recognition/labels.csv"
LAYOUT = (*(f"{DETECTOR}/{name}" for name in FILES), RECOGNISER, LABELS)
SOURCE = "unverified: weights are not public any more (giphy/celeb-detection-oss, resources.tar.gz)"
LICENCE = "code MPL-2.0; nothing is said of the weights"
SIZE, MARGIN, EMBEDDING = 224, 0.2, 256
MOST_FACES = 8
ROWS = 4


class Recogniser(nn.Module):
    """ResNet-50 with a bottleneck before its classes; parameters have the names of the original.

    Args:
        persons: number of classes.
    """

    def __init__(self, persons: int) -> None:
        super().__init__()
        trunk = torchvision.models.resnet50(weights=None)
        self.stem = nn.Sequential(*list(trunk.children())[:-1])
        self.fc1 = nn.Linear(trunk.fc.in_features, EMBEDDING)
        self.fc2 = nn.Linear(EMBEDDING, persons)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, 224, 224) in [0, 1]. Returns probabilities (N, persons)."""
        return self.fc2(self.fc1(self.stem(x).flatten(1))).softmax(-1)


def load_recogniser(path: Path, persons: int) -> Recogniser:
    """Reads the recogniser's weights: a training checkpoint with ``model_state``, or its tensors alone.

    Raises:
        UserInputError: it holds other weights, or cannot be read without running it.
    """
    prefixes = ("model_state.", "model.")
    tensors = read_weights(path).tensors
    if any(name.startswith(prefixes[0]) for name in tensors):
        tensors = {name: t for name, t in tensors.items() if name.startswith(prefixes[0])}
    for prefix in prefixes:
        tensors = {name.removeprefix(prefix): t.float() for name, t in tensors.items()}
    with torch.device("meta"):  # no random values for weights that are read anyway
        network = Recogniser(persons)
    # counts of training steps, which torch before 0.4.1 did not write
    counters = {name: torch.zeros((), dtype=torch.long) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    wanted = {name: t for name, t in network.state_dict().items() if name not in counters}
    found = {name: t for name, t in tensors.items() if name not in counters and not name.startswith("center_loss_criterion.")}
    check_names(wanted, found, path)
    network.load_state_dict({**found, **counters}, assign=True)
    return network.eval().requires_grad_(False)


def read_labels(path: Path) -> tuple[str, ...]:
    """The persons in the order of the classes: the sorted first column, whatever the file's order and its second column are.

    ``Brad_Pitt_[m.0c6qh]`` is written ``Brad Pitt``.

    Raises:
        UserInputError: it is no table of labels.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names = sorted(row[0] for row in list(csv.reader(file))[1:] if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserInputError(f"{path} is no table of labels: {error}", "expected: a header and then rows like Brad_Pitt_[m.0c6qh],281") from error
    if not names:
        raise UserInputError(f"{path} has no labels", "expected: a header and then rows like Brad_Pitt_[m.0c6qh],281")
    return tuple(name.partition("_[")[0].replace("_", " ") for name in names)


def face_window(box: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    """The pixels of a face: left, top, right and bottom (not included) of its box with half the margin on each side.

    The margin is 0.2 of the side, cut to whole pixels before it is halved, as in the original.
    """
    x1, y1, x2, y2 = box[:4]
    across, down = int((x2 - x1) * MARGIN) / 2, int((y2 - y1) * MARGIN) / 2
    return int(max(x1 - across, 0)), int(max(y1 - down, 0)), int(min(x2 + across, width)), int(min(y2 + down, height))


def resized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop (H, W, 3) brought to (224, 224, 3): PIL's bilinear with antialiasing, which is what ``imresize`` called."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


class Giphy:
    """GIPHY's celebrity detector; the 8 faces of the highest score in an image, each by itself.

    Args:
        folder: where the archive's ``resources`` were unpacked; None for the environment's ``CONCEPTBENCH_GIPHY``.

    Raises:
        MissingWeightsError: there is no folder, or a file is not in it.
        UserInputError: a file is not what it should be.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        root = _folder(folder)
        labels = read_labels(root / LABELS)
        self.finder = MTCNN(root / DETECTOR)
        self.recogniser = load_recogniser(root / RECOGNISER, len(labels))
        digest = key_of({name: sha256_file(root / name) for name in LAYOUT})
        look = f"MTCNN 20 px .6/.7/.7, margin {MARGIN:g}, {SIZE} px PIL bilinear without aspect, [0, 1]; each face by itself, no clusters"
        self.card = JudgeCard("giphy", "faces", digest, SOURCE, LICENCE, look, {"identity": labels})

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``faces`` (N, 8, 5): score, box in [0, 1], by falling score; ``identities`` (N, 8, persons): probabilities. Unused rows are 0."""
        faces = np.zeros((len(images), MOST_FACES, 5), np.float32)
        identities = np.zeros((*faces.shape[:2], len(self.card.labels["identity"])), np.float32)
        crops = []
        for picture, row, box, pixels in self._found(images):
            height, width = images.shape[1:3]
            faces[picture, row] = box[4], *(box[:4] / (width, height, width, height)).clip(0, 1)
            crops.append(resized(pixels))
        if crops:
            x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous().float() / 255
            identities[faces[..., 0] > 0] = in_blocks(self.recogniser, ROWS, x).numpy()
        return {"faces": faces, "identities": identities}

    def _found(self, images: NDArray[np.uint8]) -> list[tuple[int, int, NDArray[np.float64], NDArray[np.uint8]]]:
        """Image, row, box and pixels of each face; boxes without a pixel are left out."""
        found = []
        for picture, image in enumerate(images):
            boxes = self.finder(image)
            seen = [(box, face_window(box, *image.shape[:2])) for box in boxes]
            whole = [(box, image[top:bottom, left:right]) for box, (left, top, right, bottom) in seen if left < right and top < bottom]
            found += [(picture, row, box, pixels) for row, (box, pixels) in enumerate(whole[:MOST_FACES])]
        return found


def _folder(given: Path | str | None) -> Path:
    """The folder of weights, with all files in it."""
    chosen = given or os.environ.get(VARIABLE)
    hint = f"unpack resources.tar.gz of giphy/celeb-detection-oss, or what MACE or HUB mirror, and set {VARIABLE} to the folder with {', '.join(LAYOUT)}"
    if not chosen:
        raise MissingWeightsError("judge 'giphy' needs a folder of weights, which are not public any more", hint)
    missing = [name for name in LAYOUT if not (Path(chosen) / name).is_file()]
    if missing:
        raise MissingWeightsError(f"judge 'giphy' does not find {missing[0]} in {chosen}", hint)
    return Path(chosen)
