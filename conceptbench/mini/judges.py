"""The mini tier's judges behind the harness's interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from conceptbench.core.errors import MissingWeightsError
from conceptbench.core.files import sha256_file
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.judges.perceptual import check_pairs, perceptual_distance, to_range, uniform_heads
from conceptbench.mini.networks import DETECTIONS, GRID, Classifier, Detector
from conceptbench.mini.world import IDENTITIES, IMAGE_SIZE, MARKS, STYLE_CLASSES, SUBJECT_CLASSES, WORLD_VERSION
from conceptbench.models.rows import in_blocks

WEIGHTS = Path(__file__).parent / "weights"
SOURCE = f"trained on drawings of mini world {WORLD_VERSION}: python -m conceptbench.mini.training"
LICENCE = "Apache-2.0"
MOST_DETECTIONS = 8
ROWS = 64  # of every forward, see conceptbench.models.rows


def weights_file(name: str) -> Path:
    """A shipped weights file.

    Raises:
        MissingWeightsError: it is not there (a checkout before training).
    """
    path = WEIGHTS / name
    if not path.exists():
        raise MissingWeightsError(f"the mini tier's {name} is not here", "make it: python -m conceptbench.mini.training all --work work --install")
    return path


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, 32, 32) in [-1, 1]; other sizes are reduced by area."""
    x = to_range(images)
    if x.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        x = F.interpolate(x, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
    return x


def _load(network: nn.Module, path: Path) -> nn.Module:
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    return network.eval().requires_grad_(False)


class MiniClassifier:
    """Subject, style and identity of a picture, and pooled features."""

    def __init__(self) -> None:
        path = weights_file("classifier.safetensors")
        self.network = _load(Classifier(), path)
        labels = {"subject": SUBJECT_CLASSES, "style": STYLE_CLASSES, "identity": (*IDENTITIES, "no person")}
        self.card = JudgeCard("mini-classifier", "classifier", sha256_file(path), SOURCE, LICENCE, "32 px, [-1, 1]", labels)

    def _everything(self, x: Tensor) -> Tensor:
        out = self.network(x)
        return torch.cat([*(out[h] for h in self.card.labels), out["features"]], 1)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Probabilities (N, labels) by head and ``features`` (N, 192)."""
        sizes = [*(len(names) for names in self.card.labels.values()), Classifier.FEATURES]
        joined = in_blocks(self._everything, ROWS, to_input(images))
        *logits, features = joined.split(sizes, 1)
        return {**{h: part.softmax(-1).numpy() for h, part in zip(self.card.labels, logits, strict=True)}, "features": features.numpy()}


def peaks(scores: Tensor) -> Tensor:
    """The scores (N, K, G, G) where they are the largest of their 3 x 3 neighbourhood, else 0."""
    return scores * (scores == F.max_pool2d(scores, 3, 1, 1))


class MiniDetector:
    """Marks and faces with boxes."""

    def __init__(self) -> None:
        path = weights_file("detector.safetensors")
        self.network = _load(Detector(), path)
        labels = {"mark": (*MARKS,), "face": ("face",)}
        assert (*labels["mark"], *labels["face"]) == DETECTIONS
        self.card = JudgeCard("mini-detector", "detector", sha256_file(path), SOURCE, LICENCE, "32 px, [-1, 1]", labels)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``detections`` (N, 8, 6): score, label index (marks, then face), x0, y0, x1, y1 in [0, 1], by falling score."""
        logits, boxes = in_blocks(lambda x: torch.cat(self.network(x), 1), ROWS, to_input(images)).split([len(DETECTIONS), 3], 1)
        scores = peaks(torch.sigmoid(logits))
        top, index = scores.flatten(1).topk(MOST_DETECTIONS)
        kind, cell = index // GRID**2, index % GRID**2
        column, row = cell % GRID, cell // GRID
        x, y, radius = (boxes[:, i].flatten(1).gather(1, cell) for i in range(3))
        x, y = (column + x) / GRID, (row + y) / GRID
        out = torch.stack([top, kind.float(), x - radius, y - radius, x + radius, y + radius], -1)
        return {"detections": out.numpy()}


class MiniCLIP:
    """Image-text similarity by an open_clip model of the mini world."""

    def __init__(self) -> None:
        import open_clip

        folder = weights_file("clip/open_clip_model.safetensors").parent
        self.model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.model.float().eval().requires_grad_(False)
        self.tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(f"local-dir:{folder}")
        digest = sha256_file(folder / "open_clip_model.safetensors")
        self.card = JudgeCard("mini-clip", "image-text", digest, SOURCE, LICENCE, "32 px, [-1, 1]; text of 24 tokens", {})

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``embedding`` (N, 128) of length 1."""
        return {"embedding": in_blocks(lambda x: self.model.encode_image(x, normalize=True), ROWS, to_input(images)).numpy()}

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, 128) of length 1."""
        return in_blocks(lambda x: self.model.encode_text(x, normalize=True), ROWS, self.tokenizer(list(texts))).numpy()


class MiniLPIPS:
    """A perceptual distance of two pictures: LPIPS' arithmetic on the classifier's stages, without learned heads.

    Its numbers lie in [0, 2] and are not LPIPS values: the trunk knows the mini world only.
    """

    def __init__(self) -> None:
        path = weights_file("classifier.safetensors")
        self.network = Classifier()
        _load(self.network, path)
        self.card = JudgeCard("mini-lpips", "distance", sha256_file(path), SOURCE, LICENCE, "32 px, [-1, 1]; mean of three stages", {})

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) distances of pictures (N, 3, 32, 32) in [-1, 1]."""
        a, b = self.network.stage_outputs(x), self.network.stage_outputs(y)
        return perceptual_distance(a, b, uniform_heads(a))

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], partners: NDArray[np.uint8]) -> Outputs:
        """``distance`` (N,) float32."""
        check_pairs(self.card.id, images, partners)
        return {"distance": in_blocks(self.distance, ROWS, to_input(images), to_input(partners)).numpy()}
