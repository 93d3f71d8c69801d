"""Heat maps over images: where each model looks at a word, all heads together and head by head, one line a model."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from conceptbench.engine.figures.svg import INK, SOFT, drawing, line, text

TILE, GAP = 128, 4  # pixels: the image and its map; heads are in two lines beside them
HEAD = (TILE - GAP) // 2
QUALITY = 80  # of the JPEG that a line is
BACKGROUND = 255
LEAST_TOP = 2.0  # the scale's end is at least twice the even map, so that what is nearly even looks even
HEATS = ((0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122), (229, 80, 100), (251, 135, 97), (254, 194, 135), (252, 253, 191))
"""Nine equidistant colours of matplotlib's magma, whose lightness grows evenly."""
HEAT, SHADE = 0.8, 0.35  # how much of a tile is colour of the map and contrast of the image

Arrays = Mapping[str, NDArray[Any]]


def colours_of(values: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 3) colours in [0, 255] of values, those outside [0, 1] being cut."""
    at = np.linspace(0, 1, len(HEATS))
    return np.stack([np.interp(values, at, channel) for channel in zip(*HEATS, strict=True)], -1)


def density(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Maps (..., h, w) over their means: 1 is as much as an even map has. A map that is 0 everywhere stays so."""
    wide = np.asarray(maps, np.float64)
    mean = wide.mean((-2, -1), keepdims=True)
    return wide / np.where(mean > 0, mean, 1)


def scale_top(maps: Sequence[NDArray[Any]]) -> float:
    """Where the colours end for all lines of a panel: the highest density of any line's map (not of its heads', which may be cut)."""
    return max([LEAST_TOP, *(float(density(m).max()) for m in maps)])


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(side, side, 3): small images enlarged without smoothing, larger ones reduced."""
    method = Image.Resampling.LANCZOS if max(pixels.shape[:2]) > side else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((side, side), method))


def overlay(pixels: NDArray[np.uint8], heat: NDArray[Any], top: float, side: int) -> NDArray[np.uint8]:
    """The image's shades under the map's colours.

    Args:
        pixels: (H, W, 3) uint8.
        heat: (h, w), not negative.
        top: the density that gets the last colour.
        side: of the result.

    Returns:
        (side, side, 3) uint8. The image's mean brightness is taken out, so that dark and light images' maps compare.
    """
    smooth = np.asarray(Image.fromarray(density(heat).astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
    shades = resized(pixels, side).mean(-1, keepdims=True)
    return np.clip(HEAT * colours_of(smooth / top) + SHADE * (shades - shades.mean()), 0, 255).astype(np.uint8)


def tile_width(heads: int) -> int:
    """Pixels of a line: the image, its map, and the heads in two lines."""
    return 2 * (TILE + GAP) + -(-heads // 2) * (HEAD + GAP) - GAP


def strip(pixels: NDArray[np.uint8], mean: NDArray[Any], heads: NDArray[Any], top: float) -> NDArray[np.uint8]:
    """One model's line.

    Args:
        pixels: (H, W, 3) uint8.
        mean: (h, w) map of all heads.
        heads: (heads, h, w), shown from left to right, the first half above.
        top: of the colours.

    Returns:
        (TILE, tile_width, 3) uint8.
    """
    columns = -(-len(heads) // 2)
    canvas = np.full((TILE, tile_width(len(heads)), 3), BACKGROUND, np.uint8)
    canvas[:, :TILE] = resized(pixels, TILE)
    canvas[:, TILE + GAP : 2 * TILE + GAP] = overlay(pixels, mean, top, TILE)
    for i, head in enumerate(heads):
        y, x = i // columns * (HEAD + GAP), 2 * (TILE + GAP) + i % columns * (HEAD + GAP)
        canvas[y : y + HEAD, x : x + HEAD] = overlay(pixels, head, top, HEAD)
    return canvas


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 3) as a JPEG inside the page."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _captions(heads: int) -> Markup:
    left = 2 * (TILE + GAP)
    parts = [text(0, 13, "image", fill=SOFT), text(TILE + GAP, 13, "all heads", fill=SOFT)]
    if heads:
        parts.append(text(left, 13, f"heads 1 to {heads}, line by line", fill=SOFT))
    return drawing(tile_width(heads), 18, "image, map of all heads, maps of each head", parts)


def _scale(top: float, width: int) -> Markup:
    length, steps, y = 200, 50, 6
    size = length / steps
    fills = (",".join(str(round(c)) for c in colours_of(np.array((i + 0.5) / steps))) for i in range(steps))
    filled = [f'<rect x="{i * size:.1f}" y="{y}" width="{size + 0.5:.1f}" height="9" fill="rgb({fill})"/>' for i, fill in enumerate(fills)]
    even = length / top
    marks = [line(even, y - 3, even, y + 12, stroke=INK), text(max(even - 18, 0), y + 23, "1: even", fill=SOFT)]
    ends = [text(length, y + 23, f"≥ {top:.1f}", anchor="end", fill=SOFT)] + ([text(0, y + 23, "0", fill=SOFT)] if even > 40 else [])
    note = text(length + 12, y + 9, "attention to the word, over its mean in the image", fill=SOFT)
    return drawing(max(width, length + 290), 32, f"colours from 0 to {top:.1f} times the mean", [*filled, *marks, *ends, note])


def _label(who: str, arrays: Arrays, number: int) -> Markup:
    if "entropy" not in arrays:
        return Markup("{}").format(who)
    entropy = float(arrays["entropy"][number])
    return Markup("{}<br><small>{}</small>").format(who, f"entropy {entropy:.3f}" if np.isfinite(entropy) else "no map")


def heatmap_panel(rows: Sequence[tuple[str, Arrays]], number: int = 0, *, concept: str, prompt: str, explicit: bool = False) -> Markup:
    """One prompt's maps, one line a model, all in one scale of colours; markup for a page without scripts, texts escaped.

    Args:
        rows: (model, arrays), the base first. Arrays as the probe ``attention_map`` gives them: ``images`` (S, H, W, 3) uint8,
            ``mean`` (S, h, w), ``heads`` (S, heads, h, w) and, if there, ``entropy`` (S,). A model with fewer than ``number`` + 1
            images is left out.
        number: which of the S prompts.
        concept: its name.
        prompt: its text.
        explicit: whether everything is blurred until it is asked for.

    Returns:
        An element, or nothing where no model has maps. It uses the page's classes ``strips``, ``who``, ``clip`` and ``veil``.
    """
    there = [(who, arrays) for who, arrays in rows if number < len(arrays.get("mean", ()))]
    if not there:
        return Markup("")
    top = scale_top([arrays["mean"][number] for _, arrays in there])
    most = max(arrays["heads"].shape[1] for _, arrays in there)
    width = tile_width(most)
    lines = [Markup('<span class="who"></span><span style="display:block;min-width:{}px">{}</span>').format(width, _captions(most))]
    for who, arrays in there:
        pixels = strip(arrays["images"][number], arrays["mean"][number], arrays["heads"][number], top)
        image = Markup('<img src="{}" width="{}" height="{}" alt="{}" title="{}">').format(
            data_uri(pixels), pixels.shape[1], TILE, f"where {who} looks at {concept}", prompt
        )
        lines.append(Markup('<span class="who">{}</span><span class="clip">{}</span>').format(_label(who, arrays, number), image))
    lines.append(Markup('<span class="who"></span><span style="display:block">{}</span>').format(_scale(top, width)))
    strips = Markup('<span class="strips">{}</span>').format(Markup("").join(lines))
    if explicit:
        box = Markup('<input type="checkbox" autocomplete="off" aria-label="show explicit images of {}">').format(concept)
        strips = Markup('<label class="veil">{}<span class="say">explicit: click to show or hide</span>{}</label>').format(box, strips)
    return Markup("<div><h4>{} <small>{}</small></h4>{}</div>").format(concept, prompt, strips)
