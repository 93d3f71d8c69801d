"""Perceptual distances between two images from the feature maps of a network: the arithmetic of LPIPS.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (CVPR 2018), eq. 1, as the package
``lpips`` 0.1 computes it. The networks are the judges' affair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError

EPSILON = 1e-10  # of the package; a position without any feature stays zero
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation for [-1, 1]


def unit_channels(x: Tensor) -> Tensor:
    """Scales the channel vector at every position of (N, C, H, W) to length 1; a zero vector stays zero."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Tensor]) -> Tensor:
    """The sum over layers of the mean over positions of the weighted squared difference of unit vectors.

    Args:
        a: feature maps of N images, one (N, C_l, H_l, W_l) a layer.
        b: those of their partners.
        heads: one (C_l,) a layer: the weight of each channel, not negative.

    Returns:
        (N,) distances, 0 for equal maps.
    """
    total = torch.zeros(len(a[0]), dtype=a[0].dtype, device=a[0].device)
    for x, y, head in zip(a, b, heads, strict=True):
        squared = (unit_channels(x) - unit_channels(y)).square()
        total = total + (squared * head[None, :, None, None]).sum(1).mean((1, 2))
    return total


def uniform_heads(maps: Sequence[Tensor]) -> list[Tensor]:
    """Heads that nobody learned: every channel counts the same, and so does every layer; distances lie in [0, 4].

    Features behind a ReLU are not negative, and then the distance is at most 2.
    """
    return [torch.full((m.shape[1],), 1 / len(maps), dtype=m.dtype, device=m.device) for m in maps]


def tapped(features: nn.Sequential, taps: Sequence[int], x: Tensor) -> list[Tensor]:
    """The outputs of the layers at the indices ``taps`` of a network that is applied to x."""
    maps = []
    for i, layer in enumerate(features):
        x = layer(x)
        if i in taps:
            maps.append(x)
    return maps


def normalised(x: Tensor) -> Tensor:
    """LPIPS' scaling layer: (N, 3, H, W) in [-1, 1] to what the ImageNet networks expect.

    Raises:
        UserInputError: a value lies outside [-1, 1] or is not a number; the distance would be one of other images.
    """
    low, high = float(x.min()), float(x.max())
    if not (low >= -1 and high <= 1):
        raise UserInputError(f"LPIPS takes images in [-1, 1], and these lie in [{low:g}, {high:g}]", "bytes become that by x / 127.5 - 1")
    shift, scale = (torch.tensor(v, dtype=x.dtype, device=x.device)[None, :, None, None] for v in (SHIFT, SCALE))
    return (x - shift) / scale


def to_range(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1].

    Laid out channel by channel: a view of pixels keeps its strides or loses them when a block is padded, and convolutions
    choose their kernel, and so their rounding, by the strides.
    """
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def check_pairs(judge: str, images: NDArray[np.uint8], partners: NDArray[np.uint8]) -> None:
    """Refuses images whose partners are missing or of another size: a distance to nothing is no distance.

    Raises:
        UserInputError: shapes or dtypes do not fit.
    """
    if images.shape != partners.shape or images.ndim != 4 or images.shape[-1] != 3:
        raise UserInputError(
            f"judge {judge!r} compares images (N, H, W, 3) with as many partners of the same size; it was given {images.shape} and {partners.shape}",
            "sample both with the same sampler and size",
        )
    if images.dtype != np.uint8 or partners.dtype != np.uint8:
        raise UserInputError(f"judge {judge!r} takes bytes in [0, 255]; it was given {images.dtype} and {partners.dtype}", "round and convert to uint8")
