"""The erased-against-kept scatter as inline SVG: upper right is best. Kept is what must stay: nothing that was brought back, nothing unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conceptbench.engine.figures.svg import BASE_COLOUR, SOFT, drawing, group, line, shortened, text

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 470, 340, 52, 46, 14, 132
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Point:
    """One model: its two rates in [0, 1] with intervals."""

    label: str
    kept: float
    kept_range: Range
    erased: float
    erased_range: Range


def upwards(row: Mapping[str, Any]) -> tuple[float, Range]:
    """A rate and its interval so that more is better: one minus it where less is."""
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if row["better"] != "lower":
        return value, (low, high)
    return 1 - value, (None, None) if low is None else (1 - high, 1 - low)


def points_of(rows: Sequence[Mapping[str, Any]], kept: str, erased: str, order: Sequence[str]) -> list[Point]:
    """The models of a task for which both headline numbers exist and are rates.

    Args:
        rows: of one task, each with ``who``, the name of its model.
        kept: id of the headline metric of what is kept.
        erased: id of the headline metric of what is erased.
        order: the models from first to last.
    """

    def overall(who: str, metric: str, role: str) -> Mapping[str, Any] | None:
        found = (r for r in rows if (r["who"], r["metric"], r["role"], r["concept"], r["unit"]) == (who, metric, role, "*", "rate"))
        return next((r for r in found if r["value"] is not None), None)

    points = []
    for who in order:
        x, y = overall(who, kept, "retained"), overall(who, erased, "target")
        if x and y:
            points.append(Point(who, *upwards(x), *upwards(y)))
    return points


def axis_name(rows: Sequence[Mapping[str, Any]], metric: str, role: str) -> str:
    """What :func:`upwards` made of a metric."""
    falls = any(r["metric"] == metric and r["role"] == role and r["better"] == "lower" for r in rows)
    return f"100 − {metric}" if falls else metric


def _x(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - value * (HEIGHT - BOTTOM - TOP)


def _label_heights(points: Sequence[Point]) -> dict[str, float]:
    """Label positions from top to bottom, pushed apart so that none covers another."""
    heights: dict[str, float] = {}
    last = -1e9
    for point in sorted(points, key=lambda p: _y(p.erased)):
        last = heights[point.label] = max(_y(point.erased), last + 14)
    overflow = max(0.0, last - (HEIGHT - BOTTOM))
    return {k: v - overflow for k, v in heights.items()}


def _mark(point: Point, colour: str, label_y: float) -> str:
    x, y = _x(point.kept), _y(point.erased)
    parts = []
    (xl, xh), (yl, yh) = point.kept_range, point.erased_range
    if xl is not None and xh is not None:
        parts.append(line(_x(xl), y, _x(xh), y, stroke=colour, width=1.5, opacity=0.6))
    if yl is not None and yh is not None:
        parts.append(line(x, _y(yl), x, _y(yh), stroke=colour, width=1.5, opacity=0.6))
    end = WIDTH - RIGHT + 14
    parts.append(line(x, y, end - 3, label_y, stroke=colour, width=0.7, opacity=0.5))
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
    parts.append(text(end, label_y + 4, shortened(point.label, 18), size=12))
    return group(parts, f"{point.label}: kept {100 * point.kept:.1f}, erased {100 * point.erased:.1f}")


def scatter_svg(points: Sequence[Point], x_name: str, y_name: str, palette: Mapping[str, str]) -> Markup:
    """The figure, or nothing where there is no point; labels are escaped.

    Args:
        points: the models.
        x_name: what the horizontal axis shows.
        y_name: what the vertical axis shows.
        palette: eraser -> colour; a model without one (the base) is grey.
    """
    if not points:
        return Markup("")
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [line(_x(0), _y(tick), _x(1), _y(tick)), line(_x(tick), _y(0), _x(tick), _y(1))]
        parts.append(text(_x(tick), _y(0) + 16, f"{tick * 100:.0f}", anchor="middle", fill=SOFT))
        parts.append(text(_x(0) - 7, _y(tick) + 4, f"{tick * 100:.0f}", anchor="end", fill=SOFT))
    parts.append(text((_x(0) + _x(1)) / 2, HEIGHT - 8, f"kept: {x_name} %  →", size=12, anchor="middle"))
    parts.append(text(14, (_y(0) + _y(1)) / 2, f"erased: {y_name} %  →", size=12, anchor="middle", turn=True))
    heights = _label_heights(points)
    parts += [_mark(p, palette.get(p.label, BASE_COLOUR), heights[p.label]) for p in points]
    return drawing(WIDTH, HEIGHT, "erased against kept, one point a model; upper right is best", parts)
