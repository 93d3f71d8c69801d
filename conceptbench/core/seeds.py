"""Seeds by name. Held-out images have even seeds, development images and all training odd ones: they can never meet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conceptbench.core.schemas import Split


BYTES = 5
"""Of a hash in a seed: 40 bits."""


def _hash(*parts: object) -> int:
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:BYTES], "big")


def image_seed(suite_seed: int, prompt_id: str, number: int, split: Split) -> int:
    """The noise seed of an evaluation image."""
    return image_seeds(suite_seed, prompt_id, range(number, number + 1), split)[0]


def image_seeds(suite_seed: int, prompt_id: str, numbers: Iterable[int], split: Split) -> list[int]:
    """The noise seeds of several images of one prompt; what they share is hashed once."""
    shared = hashlib.sha256(f"image\x1f{suite_seed}\x1f{prompt_id}\x1f".encode())
    seeds = []
    for number in numbers:
        digest = shared.copy()
        digest.update(b"%d" % number)
        seeds.append(2 * int.from_bytes(digest.digest()[:BYTES], "big") + (split == "development"))
    return seeds


def training_seed(*parts: object) -> int:
    """A seed for anything that trains or tunes: always odd."""
    return 2 * _hash("training", *parts) + 1
