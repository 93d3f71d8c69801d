"""The nine styles of the mini world as filters of an RGB picture, at the size it is drawn before reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.floating[Any]]  # (H, W, 3) in [0, 1]


def _luma(x: Pixels) -> Pixels:
    return np.asarray(x @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def _edges(x: Pixels) -> Pixels:
    """Edge strength (H, W) in [0, 1], two pixels wide at drawing size."""
    g = np.max(np.abs(np.gradient(x, axis=(0, 1))), axis=(0, 3))
    image = Image.fromarray((np.clip(g * 5, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.MaxFilter(3)), np.float32) / 255


def _filtered(x: Pixels, image_filter: ImageFilter.Filter | type[ImageFilter.Filter]) -> Pixels:
    image = Image.fromarray((np.clip(x, 0, 1) * 255).astype(np.uint8)).filter(image_filter)
    return np.asarray(image, np.float32) / 255


def _rgb(r: float, g: float, b: float) -> Pixels:
    return np.array([r, g, b], np.float32)


def sketch(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Dark pencil lines on white paper, with light grey shading."""
    grey = 1 - 0.3 * (1 - _luma(x)) - 0.75 * _edges(x)
    return np.repeat(grey[..., None], 3, 2) * _rgb(1, 1, 0.98)


def neon(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Glowing coloured lines on near black."""
    saturated = np.clip((x - _luma(x)[..., None]) * 2.2 + 0.75, 0.1, 1)
    return 0.16 * x + _edges(x)[..., None] * saturated + _rgb(0.03, 0, 0.1)


def mosaic(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Tiles with dark joints; each tile takes half of its own mean colour."""
    height, width = x.shape[:2]
    tile = height // 8
    means = x.reshape(8, tile, 8, width // 8, 3).mean((1, 3)).repeat(tile, 0).repeat(width // 8, 1)
    out = 0.5 * x + 0.5 * means
    joint = (np.arange(height) % tile) < max(1, tile // 5)
    out[joint], out[:, joint] = out[joint] * 0.3, out[:, joint] * 0.3
    return out


def watercolor(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Pale washes that bleed, on white paper."""
    soft = _filtered(_filtered(x, ImageFilter.ModeFilter(7)), ImageFilter.GaussianBlur(x.shape[0] / 90))
    coarse = rng.random((9, 9)).astype(np.float32)
    wash = np.asarray(Image.fromarray((coarse * 255).astype(np.uint8)).resize(x.shape[1::-1], Image.Resampling.BICUBIC), np.float32) / 255
    return 1 - (1 - soft) * (0.45 + 0.25 * wash)[..., None]


def poster(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Flat full colours: every channel is on or off, behind a magenta and yellow ground tone."""
    flat = np.where(x > 0.5, _rgb(1, 0.93, 0.3), _rgb(0.55, 0.0, 0.55)).astype(np.float32)
    return np.asarray(np.where(_luma(x)[..., None] < 0.2, _rgb(0.1, 0, 0.12), flat), np.float32)


def blueprint(x: Pixels, rng: np.random.Generator) -> Pixels:
    """White lines and faint fills on drafting blue."""
    line = np.clip(0.9 * _edges(x) + 0.3 * _luma(x), 0, 1)[..., None]
    return _rgb(0.05, 0.2, 0.62) * (1 - line) + line


def sepia(x: Pixels, rng: np.random.Generator) -> Pixels:
    """An old photograph: brown tones and dark corners."""
    yy, xx = np.mgrid[-1 : 1 : x.shape[0] * 1j, -1 : 1 : x.shape[1] * 1j]
    corner = (1 - 0.35 * (xx**2 + yy**2)).astype(np.float32)[..., None]
    return (0.12 + 0.88 * _luma(x)[..., None]) * _rgb(1.0, 0.78, 0.5) * corner


def engraving(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Horizontal black hatching whose width follows the darkness, on cream."""
    period = x.shape[0] / 10.67  # three pixels after reduction to a quarter
    phase = np.abs(((np.arange(x.shape[0]) / period) % 1) * 2 - 1)[:, None]
    ink = np.clip(((1 - _luma(x)) * 0.7 - phase * 0.9 + 0.1) * 4, 0, 0.8)
    ink = np.maximum(ink, 0.85 * _edges(x))[..., None]
    return _rgb(0.98, 0.94, 0.8) * (1 - 0.9 * ink)


def thermal(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Brightness as heat: violet, red, orange, white."""
    stops = np.linspace(0, 1, 5)
    table = np.array([[0.05, 0, 0.25], [0.45, 0, 0.6], [0.9, 0.15, 0.25], [1, 0.65, 0.05], [1, 1, 0.85]])
    y = _luma(x)
    return np.stack([np.interp(y, stops, table[:, c]) for c in range(3)], -1).astype(np.float32)


FILTERS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    f.__name__: f for f in (sketch, neon, mosaic, watercolor, poster, blueprint, sepia, engraving, thermal)
}
