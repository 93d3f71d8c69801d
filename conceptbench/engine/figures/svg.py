"""Small pieces of inline SVG. Every text that comes from a run is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

INK, SOFT, GRID = "#22272e", "#5b6470", "#e3e6ea"
BASE_COLOUR = "#5b6470"
COLOURS = (
    *("#d1495b", "#00798c", "#c77f0a", "#30638e", "#5a8f3e", "#8e5572", "#9c5518", "#2b2d78", "#9a031e", "#0f9d76"),
    *("#e07aa5", "#6f7d1c", "#7b4fc9", "#4aa3df", "#111111", "#c9a227", "#3c6e47", "#b05de0"),
)


def colours(erasers: Sequence[str]) -> dict[str, str]:
    """A colour for each eraser in the order of the line-up, the same in every figure of the page; they repeat after eighteen."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(erasers)}


def text(x: float, y: float, label: object, *, size: float = 11, anchor: str = "start", fill: str = INK, turn: bool = False) -> str:
    """A text element with its baseline at (x, y), or read upwards along a vertical axis; the label is escaped."""
    place = f'transform="translate({x:.1f} {y:.1f}) rotate(-90)"' if turn else f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} text-anchor="{anchor}" font-size="{size:g}" fill="{fill}">{escape(label)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = GRID, width: float = 1, opacity: float = 1, dash: str = "") -> str:
    """A straight line."""
    more = (f' opacity="{opacity:g}"' if opacity != 1 else "") + (f' stroke-dasharray="{dash}"' if dash else "")
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width:g}"{more}/>'


def group(parts: Iterable[str], tooltip: str = "") -> str:
    """Elements that belong together, with a tooltip over all of them."""
    return f"<g>{f'<title>{escape(tooltip)}</title>' if tooltip else ''}{''.join(parts)}</g>"


def drawing(width: float, height: float, label: str, parts: Iterable[str]) -> Markup:
    """The whole figure.

    Args:
        width: in pixels at full size; the figure shrinks with its container.
        height: likewise.
        label: what it shows, for readers that do not see it.
        parts: elements made by this module, or of numbers only.
    """
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
    return Markup(f'{head} aria-label="{escape(label)}">{"".join(parts)}</svg>')  # noqa: S704 - numbers, our colours and escaped texts


def shortened(label: str, letters: int) -> str:
    """The label, cut with an ellipsis if it has more letters."""
    return label if len(label) <= letters else label[: letters - 1].rstrip() + "…"


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers within [low, high], in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: where the range begins.
        high: where it ends, above ``low``.
        about: roughly how many are wanted.
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next((factor for factor, up_to in ((1, 1.5), (2, 3.5), (5, 7.5)) if raw / power < up_to), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
