"""Training pictures of the mini tier, drawn once and kept as one array file."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.mini.render import render
from conceptbench.mini.scenes import training_example
from conceptbench.mini.world import IMAGE_SIZE

CHUNK = 500


@dataclass(frozen=True)
class Pictures:
    """Training pictures.

    Attributes:
        images: (N, 3, 32, 32) uint8.
        captions: N texts.
    """

    images: Tensor
    captions: list[str]


def draw_chunk(seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """500 random training pictures and their captions."""
    rng = random.Random(seed)
    examples = [training_example(rng) for _ in range(CHUNK)]
    return np.stack([render(e.scene) for e in examples]), [e.caption for e in examples]


def pictures(work: Path, count: int, seed: int) -> Pictures:
    """Draws (or reads, if this was done before) the training pictures."""
    path = work / f"pictures-{seed}-{count}.npz"
    if not path.exists():
        with ProcessPoolExecutor() as pool:
            chunks = list(pool.map(draw_chunk, [seed * 100_000 + i for i in range(count // CHUNK)]))
        images = np.concatenate([c[0] for c in chunks])
        captions = [caption for c in chunks for caption in c[1]]
        np.savez(path, images=images, captions=np.array(captions))
    with np.load(path) as file:
        images, captions = file["images"], [str(c) for c in file["captions"]]
    assert images.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 3)
    return Pictures(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), captions)


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
