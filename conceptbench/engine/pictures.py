"""Image files of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of, sha256_file
from conceptbench.engine.store import UNREADABLE

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def pictures_in(folder: Path) -> list[Path]:
    """The image files of a folder and its sub-folders in the order of their names; hidden files are left out."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def chosen_pictures(folder: Path, n: int | None, what: str = "folder") -> list[Path]:
    """The first n image files of a folder, or all; errors call it ``what``.

    Raises:
        UserInputError: there is no such folder, or it has fewer images.
    """
    if not folder.is_dir():
        raise UserInputError(f"there is no {what} {folder}", "give a folder of images")
    found = pictures_in(folder)
    if not found:
        raise UserInputError(f"no images in the {what} {folder}", "give a folder of images")
    if n is not None and len(found) < n:
        raise UserInputError(f"the {what} {folder} has {len(found)} images, and {n} are asked for", "add images, or ask for fewer")
    return found[:n]


def folder_digest(folder: Path, n: int | None = None, what: str = "folder") -> str:
    """The hash of the first n image files of a folder, or of all, in the order of their names."""
    return key_of([sha256_file(p) for p in chosen_pictures(folder, n, what)])


def square_pictures(folder: Path, n: int, size: int) -> NDArray[np.uint8]:
    """The first n images of a folder, cut to their middle square and resized: (n, size, size, 3) uint8."""
    images = []
    for path in chosen_pictures(folder, n):
        images.append(np.asarray(ImageOps.fit(Image.fromarray(read_picture(path)), (size, size), Image.Resampling.LANCZOS), np.uint8))
    return np.stack(images)


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
