"""The erased-against-kept scatter as inline SVG: upper right is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 450, 330, 52, 44, 14, 118
COLORS = ("#5b6470", "#d1495b", "#00798c", "#edae49", "#30638e", "#6a994e", "#8e5572", "#bc6c25", "#3d5a80", "#9a031e")
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Point:
    """One model: its two rates in [0, 1] with intervals."""

    label: str
    kept: float
    kept_range: Range
    erased: float
    erased_range: Range


def _x(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - value * (HEIGHT - BOTTOM - TOP)


def _label_heights(points: Sequence[Point]) -> dict[str, float]:
    """Label positions from top to bottom, pushed apart so that none covers another."""
    heights: dict[str, float] = {}
    last = -1e9
    for point in sorted(points, key=lambda p: _y(p.erased)):
        last = heights[point.label] = max(_y(point.erased), last + 13)
    overflow = max(0.0, last - (HEIGHT - BOTTOM))
    return {k: v - overflow for k, v in heights.items()}


def _mark(point: Point, color: str, label_y: float) -> Markup:
    x, y = _x(point.kept), _y(point.erased)
    parts = []
    (xl, xh), (yl, yh) = point.kept_range, point.erased_range
    if xl is not None and xh is not None:
        parts.append(f'<line x1="{_x(xl):.1f}" x2="{_x(xh):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{color}" stroke-width="1.5" opacity=".55"/>')
    if yl is not None and yh is not None:
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(yl):.1f}" y2="{_y(yh):.1f}" stroke="{color}" stroke-width="1.5" opacity=".55"/>')
    end = WIDTH - RIGHT + 10
    parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{end - 3}" y2="{label_y:.1f}" stroke="{color}" stroke-width=".6" opacity=".4"/>')
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"/>')
    parts.append(f'<text x="{end}" y="{label_y + 4:.1f}" fill="{color}" font-size="12">{escape(point.label)}</text>')
    return Markup("".join(parts))  # noqa: S704 - numbers, a colour of ours and an escaped label


def scatter_svg(points: Sequence[Point], x_name: str, y_name: str) -> Markup:
    """An SVG element; labels are escaped."""
    grid = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        grid.append(
            f'<line x1="{_x(0)}" x2="{_x(1)}" y1="{_y(tick)}" y2="{_y(tick)}" stroke="#e3e6ea"/><line y1="{_y(0)}" y2="{_y(1)}" x1="{_x(tick)}" x2="{_x(tick)}" stroke="#e3e6ea"/>'
        )
        grid.append(f'<text x="{_x(tick)}" y="{_y(0) + 16}" text-anchor="middle" font-size="11" fill="#5b6470">{tick * 100:.0f}</text>')
        grid.append(f'<text x="{_x(0) - 7}" y="{_y(tick) + 4}" text-anchor="end" font-size="11" fill="#5b6470">{tick * 100:.0f}</text>')
    heights = _label_heights(points)
    marks = "".join(_mark(p, COLORS[i % len(COLORS)], heights[p.label]) for i, p in enumerate(points))
    names = (
        f'<text x="{(_x(0) + _x(1)) / 2}" y="{HEIGHT - 8}" text-anchor="middle" font-size="12" fill="#22272e">kept: {escape(x_name)} %</text>'
        f'<text transform="translate(14 {(_y(0) + _y(1)) / 2}) rotate(-90)" text-anchor="middle" font-size="12" fill="#22272e">erased: {escape(y_name)} %</text>'
    )
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="erased against kept">{"".join(grid)}{names}{marks}</svg>'
    )
    return Markup(svg)  # noqa: S704 - built above from numbers and escaped labels
