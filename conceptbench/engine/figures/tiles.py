"""Images of the store as data URIs, small enough that hundreds fit into one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conceptbench.core.errors import StoreError
from conceptbench.engine.store import Store

SMALL = 64  # pixels; images up to this size are embedded as they are, and the page enlarges them without smoothing
PHOTO = 112  # pixels that larger images are reduced to
QUALITY = 82  # of the JPEGs that these become
MISSING = 110  # grey of an image that is not there


@dataclass(frozen=True)
class Picture:
    """One or more images side by side.

    Attributes:
        uri: a data URI.
        height: pixels to show it with.
        sharp: whether to enlarge without smoothing.
    """

    uri: str
    height: int
    sharp: bool


def _read(store: Store, key: str) -> NDArray[np.uint8] | None:
    try:
        return store.read_image(key) if key else None
    except StoreError:
        return None


def _fitted(pixels: NDArray[np.uint8] | None, side: int) -> NDArray[np.uint8]:
    """(side, side, 3): the image reduced or enlarged, or grey."""
    if pixels is None:
        return np.full((side, side, 3), MISSING, np.uint8)
    if pixels.shape[:2] == (side, side):
        return pixels
    method = Image.Resampling.LANCZOS if max(pixels.shape[:2]) > side else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((side, side), method))


def picture(store: Store, keys: Sequence[str]) -> Picture:
    """Images of the store side by side; what is missing or damaged is grey.

    Args:
        store: where the images are.
        keys: theirs; an empty one is a missing image.

    Returns:
        Small images as a lossless PNG in their own size, larger ones reduced as a JPEG.
    """
    images = [_read(store, k) for k in keys]
    largest = max((max(i.shape[:2]) for i in images if i is not None), default=SMALL)
    small = largest <= SMALL
    side = largest if small else PHOTO
    strip = Image.fromarray(np.concatenate([_fitted(i, side) for i in images], axis=1))
    out = io.BytesIO()
    if small:
        strip.save(out, "PNG", optimize=True)
    else:
        strip.save(out, "JPEG", quality=QUALITY)
    kind = "png" if small else "jpeg"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}", SMALL if small else PHOTO, small)
