"""Image files of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conceptbench.core.errors import UserInputError
from conceptbench.engine.store import UNREADABLE

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def pictures_in(folder: Path) -> list[Path]:
    """The image files of a folder and its sub-folders in the order of their names; hidden files are left out."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8.

    Raises:
        UserInputError: it is truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.uint8)
    except UNREADABLE as error:
        raise UserInputError(f"cannot read the image {path}: {error}", "replace it, or take it out: a missing image is counted, not guessed") from error
