"""ResNet-18 without its last layer: the trunk of SepME's style classifier."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from conceptbench.core.errors import unknown_name
from conceptbench.core.files import sha256_file
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.judges.cache import cached_weights
from conceptbench.models.rows import in_blocks

WEIGHTS = "IMAGENET1K_V1"
ROWS = 8  # of every forward, see conceptbench.models.rows
PREPARATIONS = {
    "weights": "resize 256 bilinear, crop 224, ImageNet's mean and deviation",
    "sepme": "resize 256 bilinear, crop 256, [0, 1]",
}


class ResNet18:
    """The 512 features that torchvision's ResNet-18 gives to its last layer.

    Args:
        id: registered name.
        preparation: ``weights``: as the weights were trained; ``sepme``: shorter side and crop of 256 px, and no mean or deviation,
            as SepME's code tests (it trains its layer at 512 px).

    Raises:
        MissingWeightsError: the weights are not in torch's cache, or damaged.
        UserInputError: no such preparation.
    """

    def __init__(self, id: str, preparation: Literal["weights", "sepme"] = "weights") -> None:
        if preparation not in PREPARATIONS:
            raise unknown_name("preparation of ResNet-18", preparation, PREPARATIONS)
        entry = torchvision.models.get_model_weights("resnet18")[WEIGHTS]
        path, state = cached_weights(id, "resnet18", WEIGHTS)
        self.network = torchvision.models.resnet18()
        self.network.load_state_dict(state)
        self.network.fc = torch.nn.Identity()
        self.network.eval().requires_grad_(False)
        plain = v2.Compose([v2.Resize(256), v2.CenterCrop(256), v2.ToDtype(torch.float32, scale=True)])
        self.transform = entry.transforms() if preparation == "weights" else plain
        licence = "weights of torchvision (BSD), trained on ImageNet"
        self.card = JudgeCard(id, "features", sha256_file(path), entry.url, licence, PREPARATIONS[preparation], {})

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``features`` (N, 512) float32, not negative."""
        x: Tensor = torch.stack([self.transform(torch.tensor(i).permute(2, 0, 1)) for i in images])
        return {"features": in_blocks(self.network, ROWS, x).numpy()}


def resnet18() -> ResNet18:
    """With the preprocessing of its weights."""
    return ResNet18("resnet18")


def resnet18_sepme() -> ResNet18:
    """As SepME's code tests: 256 px, without mean and deviation."""
    return ResNet18("resnet18-sepme", "sepme")
