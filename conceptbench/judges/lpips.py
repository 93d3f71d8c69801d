"""LPIPS, on the trunks that the papers used."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from conceptbench.core.errors import MissingWeightsError, UserInputError, unknown_name
from conceptbench.core.files import key_of, sha256_file
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.judges.cache import cached_weights
from conceptbench.judges.perceptual import check_pairs, normalised, perceptual_distance, tapped, to_range
from conceptbench.models.rows import in_blocks

REDUCED_PAIRS, FULL_SIZE_PAIRS = 8, 4  # LPIPS' rows of every forward: a pair of 512 px images takes 0.3 GB of VGG's maps


@dataclass(frozen=True)
class _Trunk:
    """A network that LPIPS looks into: torchvision's name, the layers looked at, and the smallest side in px that passes all."""

    architecture: str
    taps: tuple[int, ...]
    least: int


TRUNKS = {"alex": _Trunk("alexnet", (1, 4, 7, 9, 11), 31), "vgg": _Trunk("vgg16", (3, 8, 15, 22, 29), 16)}
TRUNK_WEIGHTS = "IMAGENET1K_V1"  # what the package loads


def _heads(judge: str, net: str) -> tuple[Path, list[Tensor]]:
    """The learned weights of the channels, version 0.1, from the wheel of ``lpips``; its code is not imported."""
    spec = importlib.util.find_spec("lpips")
    path = Path(spec.origin if spec and spec.origin else "lpips").parent / "weights" / "v0.1" / f"{net}.pth"
    if not path.exists():
        raise MissingWeightsError(f"judge {judge!r} needs the weights in the package lpips", "pip install lpips")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return path, [state[f"lin{i}.model.1.weight"].flatten() for i in range(len(state))]


class LPIPS:
    """LPIPS 0.1: a learned perceptual distance of two images. A :class:`~conceptbench.core.metric.PairJudge`.

    Two protocols are in use, and their numbers are not comparable: KPOP compares 512 px images as they are; ESD, UCE and
    SepME reduce them to 64 px first. Reduction is ESD's (evalscripts/lpips_eval.py): torchvision's ``Resize(64)`` of a PIL
    image, which is bilinear with antialiasing, rounds to bytes and makes the *shorter* side 64 px. RECE reduces by OpenCV
    without antialiasing, which gives other numbers.

    Args:
        id: registered name.
        net: the trunk: ``alex`` (what all the papers use) or ``vgg``.
        size: px of the shorter side; None: the images' own size.

    Raises:
        MissingWeightsError: the trunk is not in torch's cache.
        UserInputError: no such trunk.
    """

    def __init__(self, id: str, net: Literal["alex", "vgg"], size: int | None = None) -> None:
        if net not in TRUNKS:
            raise unknown_name("trunk of LPIPS", net, TRUNKS)
        self.trunk, self.size = TRUNKS[net], size
        backbone, state = cached_weights(id, self.trunk.architecture, TRUNK_WEIGHTS)
        heads, self.heads = _heads(id, net)
        with torch.device("meta"):  # no random values for weights that are read anyway
            self.features = torchvision.models.get_model(self.trunk.architecture).features[: self.trunk.taps[-1] + 1]
        own = {f"features.{name}": name for name in self.features.state_dict()}
        self.features.load_state_dict({own[k]: v.float() for k, v in state.items() if k in own}, assign=True)
        self.features.eval().requires_grad_(False)
        digest = key_of({"backbone": sha256_file(backbone), "heads": sha256_file(heads)})
        source = f"lpips 0.1 heads on {torchvision.models.get_model_weights(self.trunk.architecture)[TRUNK_WEIGHTS].url}"
        shrink = f"shorter side to {size} px, PIL bilinear with antialiasing" if size else "images' own size"
        licence = "heads BSD-2-Clause; trunk of torchvision (BSD), trained on ImageNet"
        self.card = JudgeCard(id, "distance", digest, source, licence, f"{shrink}; [-1, 1]", {})

    def prepared(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H', W') in [-1, 1], reduced if the judge does that.

        Raises:
            UserInputError: the images are too small for the trunk.
        """
        if self.size is not None:
            images = np.stack([np.asarray(torchvision.transforms.functional.resize(Image.fromarray(i), self.size)) for i in images])
        height, width = images.shape[1:3]
        if min(height, width) < self.trunk.least:
            raise UserInputError(
                f"judge {self.card.id!r} needs images of at least {self.trunk.least} px a side, and these have {width} x {height}",
                "a judge ending in -64 enlarges them first; mini-lpips takes any size",
            )
        return to_range(images)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], partners: NDArray[np.uint8]) -> Outputs:
        """``distance`` (N,) float32."""
        check_pairs(self.card.id, images, partners)
        rows = REDUCED_PAIRS if self.size else FULL_SIZE_PAIRS
        return {"distance": in_blocks(self.distance, rows, self.prepared(images), self.prepared(partners)).numpy()}

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) distances of images (N, 3, H, W) in [-1, 1]; another range is an error."""
        maps = [tapped(self.features, self.trunk.taps, normalised(i)) for i in (x, y)]
        return perceptual_distance(maps[0], maps[1], self.heads)


def lpips_alex() -> LPIPS:
    """KPOP's LPIPS: AlexNet, images as they are."""
    return LPIPS("lpips-alex", "alex")


def lpips_alex_64() -> LPIPS:
    """ESD's, UCE's and SepME's LPIPS: AlexNet, images reduced to 64 px."""
    return LPIPS("lpips-alex-64", "alex", 64)


def lpips_vgg() -> LPIPS:
    """LPIPS on VGG16, images as they are."""
    return LPIPS("lpips-vgg", "vgg")


def lpips_vgg_64() -> LPIPS:
    """LPIPS on VGG16, images reduced to 64 px."""
    return LPIPS("lpips-vgg-64", "vgg", 64)
