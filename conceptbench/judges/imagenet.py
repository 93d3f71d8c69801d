"""torchvision's classifiers over ImageNet."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from conceptbench.core.files import sha256_file
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.judges.cache import cached_weights
from conceptbench.models.rows import in_blocks

BATCH = 32


class ImageNetClassifier:
    """A torchvision classifier over ImageNet's 1000 classes, with the preprocessing of its weights.

    Args:
        id: registered name.
        architecture: torchvision's name, e.g. ``resnet50``.
        weights: torchvision's name of the weights, e.g. ``IMAGENET1K_V2``; V1 and V2 differ in size and accuracy and are
            two protocols.

    Raises:
        MissingWeightsError: the weights file is not in torch's cache, or damaged.
    """

    def __init__(self, id: str, architecture: str, weights: str) -> None:
        entry = torchvision.models.get_model_weights(architecture)[weights]
        path, state = cached_weights(id, architecture, weights)
        self.transform = entry.transforms()
        self.network = torchvision.models.get_model(architecture)
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False)
        # labels by index: ImageNet has two classes called crane and two called maillot
        labels = {"imagenet": tuple(f"{i}:{name}" for i, name in enumerate(entry.meta["categories"]))}
        preprocessing = f"resize {self.transform.resize_size[0]} {self.transform.interpolation.value}, crop {self.transform.crop_size[0]}"
        self.card = JudgeCard(id, "classifier", sha256_file(path), entry.url, "weights of torchvision (BSD), trained on ImageNet", preprocessing, labels)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Probabilities (N, 1000) of the head ``imagenet``."""
        x = torch.stack([self.transform(torch.tensor(i).permute(2, 0, 1)) for i in images])
        return {"imagenet": in_blocks(self.network, BATCH, x).softmax(-1).numpy()}


def resnet50_v2() -> ImageNetClassifier:
    """KPOP's and ESD's judge: torchvision's default weights (resize 232)."""
    return ImageNetClassifier("resnet50-v2", "resnet50", "IMAGENET1K_V2")


def resnet50_v1() -> ImageNetClassifier:
    """SepME's judge: ``pretrained=True`` of older torchvision (resize 256)."""
    return ImageNetClassifier("resnet50-v1", "resnet50", "IMAGENET1K_V1")
