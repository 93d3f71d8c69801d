"""The erased-against-kept scatter as inline SVG: upper right is best, whatever the units.

Kept is what must stay: nothing that was brought back, nothing unseen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conceptbench.engine.figures.svg import BASE_COLOUR, SOFT, drawing, group, line, shortened, text, ticks

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 512, 340, 52, 46, 14, 178
LETTERS = 23  # of a label
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Point:
    """One model: its two values with intervals; rates are turned so that more is better."""

    label: str
    kept: float
    kept_range: Range
    erased: float
    erased_range: Range


@dataclass(frozen=True)
class Axis:
    """One direction of the figure.

    Attributes:
        name: what it shows.
        low, high: its ends.
        rate: whether it is in per cent.
        falls: whether less is better; then it runs from high to low, so that the far end is the better one.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    rate: bool = True
    falls: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is, in [0, 1]; 1 is best."""
        share = (value - self.low) / (self.high - self.low)
        return 1 - share if self.falls else share

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Values with their labels."""
        if self.rate:
            return [(t, f"{100 * t:.0f}") for t in (0, 0.25, 0.5, 0.75, 1)]
        return [(t, f"{t:g}") for t in ticks(self.low, self.high)]

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} %" if self.rate else self.name

    def show(self, value: float) -> str:
        """A value for people."""
        return f"{100 * value:.1f}" if self.rate else f"{value:.3g}"


def upwards(row: Mapping[str, Any]) -> tuple[float, Range]:
    """A value and its interval, a rate so that more is better: one minus it where less is."""
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if row["better"] != "lower" or row["unit"] != "rate":
        return value, (low, high)
    return 1 - value, (None, None) if low is None else (1 - high, 1 - low)


def _overall(rows: Sequence[Mapping[str, Any]], metric: str, role: str) -> dict[str, Mapping[str, Any]]:
    """Model -> its row over all concepts of a role, where that has a value."""
    return {r["who"]: r for r in reversed(rows) if (r["metric"], r["role"], r["concept"]) == (metric, role, "*") and r["value"] is not None}


def points_of(rows: Sequence[Mapping[str, Any]], kept: str, erased: str, order: Sequence[str]) -> list[Point]:
    """The models of a task for which both headline numbers exist.

    Args:
        rows: of one task, each with ``who``, the name of its model.
        kept: id of the headline metric of what is kept.
        erased: id of the headline metric of what is erased.
        order: the models from first to last.
    """
    xs, ys = _overall(rows, kept, "retained"), _overall(rows, erased, "target")
    return [Point(who, *upwards(xs[who]), *upwards(ys[who])) for who in order if who in xs and who in ys]


def axis_of(rows: Sequence[Mapping[str, Any]], metric: str, role: str) -> Axis:
    """The axis of a metric: rates from 0 to 100, what else there is from the least to the most that is drawn."""
    found = list(_overall(rows, metric, role).values())
    falls = any(r["better"] == "lower" for r in found)
    if all(r["unit"] == "rate" for r in found):
        return Axis(f"100 − {metric}" if falls else metric)
    values = [v for r in found for v in (r["value"], r["ci_low"], r["ci_high"]) if v is not None]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5 * abs(low) or 0.5
    return Axis(metric, low - margin, high + margin, rate=False, falls=falls)


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _label_heights(points: Sequence[Point], erased: Axis) -> dict[str, float]:
    """Label positions from top to bottom, pushed apart so that none covers another."""
    heights: dict[str, float] = {}
    last = -1e9
    for point in sorted(points, key=lambda p: _y(erased(p.erased))):
        last = heights[point.label] = max(_y(erased(point.erased)), last + 14)
    overflow = max(0.0, last - (HEIGHT - BOTTOM))
    return {k: v - overflow for k, v in heights.items()}


def _tails(labels: Sequence[str]) -> dict[str, str]:
    """What is shown of each label: where some are too long, without the beginning that these share, up to a comma or colon."""
    long = [x for x in labels if len(x) > LETTERS]
    shared = "".join(c[0] for c in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*long, strict=False))) if len(long) > 1 else ""
    shared = shared[: max(shared.rfind(","), shared.rfind(":")) + 1]
    return {x: shortened(f"…{x.removeprefix(shared)}" if shared and x.startswith(shared) else x, LETTERS) for x in labels}


def _mark(point: Point, x_axis: Axis, y_axis: Axis, colour: str, label_y: float, label: str) -> str:
    x, y = _x(x_axis(point.kept)), _y(y_axis(point.erased))
    parts = []
    (xl, xh), (yl, yh) = point.kept_range, point.erased_range
    if xl is not None and xh is not None:
        parts.append(line(_x(x_axis(xl)), y, _x(x_axis(xh)), y, stroke=colour, width=1.5, opacity=0.6))
    if yl is not None and yh is not None:
        parts.append(line(x, _y(y_axis(yl)), x, _y(y_axis(yh)), stroke=colour, width=1.5, opacity=0.6))
    end = WIDTH - RIGHT + 14
    parts.append(line(x, y, end - 3, label_y, stroke=colour, width=0.7, opacity=0.5))
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
    parts.append(text(end, label_y + 4, label, size=12))
    return group(parts, f"{point.label}: kept {x_axis.show(point.kept)}, erased {y_axis.show(point.erased)}")


def scatter_svg(points: Sequence[Point], x_axis: Axis, y_axis: Axis, palette: Mapping[str, str]) -> Markup:
    """The figure, or nothing where there is no point; labels are escaped.

    Args:
        points: the models.
        x_axis: of what is kept.
        y_axis: of what is erased.
        palette: eraser -> colour; a model without one (the base) is grey.
    """
    if not points:
        return Markup("")
    parts = []
    for tick, label in x_axis.ticks:
        parts += [line(_x(x_axis(tick)), _y(0), _x(x_axis(tick)), _y(1)), text(_x(x_axis(tick)), _y(0) + 16, label, anchor="middle", fill=SOFT)]
    for tick, label in y_axis.ticks:
        parts += [line(_x(0), _y(y_axis(tick)), _x(1), _y(y_axis(tick))), text(_x(0) - 7, _y(y_axis(tick)) + 4, label, anchor="end", fill=SOFT)]
    parts.append(text((_x(0) + _x(1)) / 2, HEIGHT - 8, f"kept: {x_axis.title}  →", size=12, anchor="middle"))
    parts.append(text(14, (_y(0) + _y(1)) / 2, f"erased: {y_axis.title}  →", size=12, anchor="middle", turn=True))
    heights, labels = _label_heights(points, y_axis), _tails([p.label for p in points])
    parts += [_mark(p, x_axis, y_axis, palette.get(p.label, BASE_COLOUR), heights[p.label], labels[p.label]) for p in points]
    return drawing(WIDTH, HEIGHT, "erased against kept, one point a model; upper right is best", parts)
