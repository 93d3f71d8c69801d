"""Training curves as small multiples: one panel a quantity, one line an eraser, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conceptbench.engine.figures.svg import BASE_COLOUR, SOFT, drawing, group, line, shortened, text, ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 390, 230, 58, 12, 24, 38
LOG_DECADES = 1.5  # positive values that span more are on a logarithmic axis
MOST_POINTS = 200  # of a line; longer curves are averaged in blocks
SMOOTH_FROM, WINDOW = 40, 11  # lines of that many points also get a running mean over so many
Points = tuple[tuple[float, float | None], ...]


@dataclass(frozen=True)
class Curve:
    """One eraser's values by step; None where the value was not finite."""

    label: str
    points: Points


@dataclass(frozen=True)
class Panel:
    """One quantity with every eraser that reports it."""

    name: str
    curves: tuple[Curve, ...]


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _blocks(points: Points) -> Points:
    """At most ``MOST_POINTS`` points: the means of blocks of equal length; gaps stay out of a mean."""
    size = -(-len(points) // MOST_POINTS)
    if size <= 1:
        return points
    means = []
    for i in range(0, len(points), size):
        block = points[i : i + size]
        there = [v for _, v in block if v is not None]
        means.append((sum(s for s, _ in block) / len(block), sum(there) / len(there) if there else None))
    return tuple(means)


def panels_of(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Panel]:
    """One panel a quantity, the loss first, with the erasers whose curves have at least two points of it.

    Args:
        curves: eraser -> points, each a mapping with ``step`` and values.
    """
    names = dict.fromkeys(k for points in curves.values() for p in points for k in p if k != "step")
    panels = []
    for name in sorted(names, key=lambda n: n != "loss"):
        lines = []
        for label, points in curves.items():
            pairs = [(_number(p.get("step")), _number(p[name])) for p in points if name in p]
            kept = tuple((s, v) for s, v in pairs if s is not None)
            if sum(v is not None for _, v in kept) >= 2:
                lines.append(Curve(label, _blocks(kept)))
        if lines:
            panels.append(Panel(name, tuple(lines)))
    return panels


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether all values are positive and span more than ``LOG_DECADES`` decades."""
    return min(values) > 0 and math.log10(max(values) / min(values)) > LOG_DECADES


def running_mean(points: Points, window: int) -> Points:
    """The mean over a centred window, narrower at the ends; gaps stay gaps and count in no mean."""
    half, smooth = window // 2, []
    for i, (step, value) in enumerate(points):
        near = [v for _, v in points[max(0, i - half) : i + half + 1] if v is not None]
        smooth.append((step, None if value is None else sum(near) / len(near)))
    return tuple(smooth)


def _path(points: Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """SVG path data; a gap begins a new stroke."""
    parts, pen = [], "M"
    for step, value in points:
        if value is None:
            pen = "M"
        else:
            parts.append(f"{pen}{x(step):.1f} {y(value):.1f}")
            pen = "L"
    return "".join(parts)


def _curve(curve: Curve, colour: str, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    stroke = f'fill="none" stroke="{colour}" stroke-linejoin="round"'
    if sum(v is not None for _, v in curve.points) < SMOOTH_FROM:
        parts = [f'<path d="{_path(curve.points, x, y)}" {stroke} stroke-width="1.6"/>']
    else:
        smooth = running_mean(curve.points, WINDOW)
        parts = [f'<path d="{_path(curve.points, x, y)}" {stroke} stroke-width=".8" opacity=".35"/>']
        parts.append(f'<path d="{_path(smooth, x, y)}" {stroke} stroke-width="1.8"/>')
    return group(parts, curve.label)


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high]; with their 2 and 5 fold where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 3)
    return [t for p in powers for f in factors if low <= (t := f * 10.0**p) <= high]


def panel_svg(panel: Panel, palette: Mapping[str, str]) -> Markup:
    """The figure of one panel; labels are escaped.

    Args:
        panel: with at least one curve.
        palette: eraser -> colour.
    """
    steps = [s for c in panel.curves for s, _ in c.points]
    values = [v for c in panel.curves for _, v in c.points if v is not None]
    log = is_logarithmic(values)
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    if not log:
        margin = 0.05 * (high - low) or 0.5 * abs(low) or 0.5
        low, high = low - margin if low < 0 or low > margin else 0.0, high + margin
    warp: Callable[[float], float] = math.log10 if log else float

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (warp(value) - warp(low)) / (warp(high) - warp(low)) * (HEIGHT - BOTTOM - TOP)

    parts = []
    for tick in _decades(low, high) if log else ticks(low, high):
        parts += [line(LEFT, y(tick), WIDTH - RIGHT, y(tick)), text(LEFT - 6, y(tick) + 4, f"{tick:g}", size=10.5, anchor="end", fill=SOFT)]
    for tick in ticks(first, last, 5) if last > first else [first]:
        parts += [line(x(tick), HEIGHT - BOTTOM, x(tick), HEIGHT - BOTTOM + 4), text(x(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", anchor="middle", fill=SOFT)]
    parts += [line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, stroke=SOFT), line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, stroke=SOFT)]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "step", anchor="middle"))
    parts.append(text(LEFT, 14, shortened(panel.name, 40) + (", logarithmic" if log else ""), size=12))
    parts += [_curve(c, palette.get(c.label, BASE_COLOUR), x, y) for c in panel.curves]
    return drawing(WIDTH, HEIGHT, f"{panel.name} by training step", parts)
