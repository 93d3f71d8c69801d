"""Seeds by name. Held-out images have even seeds, development images and all training odd ones: they can never meet."""

from __future__ import annotations

import hashlib

from conceptbench.core.schemas import Split


def _hash(*parts: object) -> int:
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:5], "big")  # 40 bits


def image_seed(suite_seed: int, prompt_id: str, number: int, split: Split) -> int:
    """The noise seed of an evaluation image."""
    return 2 * _hash("image", suite_seed, prompt_id, number) + (split == "development")


def training_seed(*parts: object) -> int:
    """A seed for anything that trains or tunes: always odd."""
    return 2 * _hash("training", *parts) + 1
