"""How erasers stand several targets: a headline metric by the number of targets and by how they were erased, as inline SVG."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from conceptbench.core.schemas import Suite, Task
from conceptbench.engine.figures.numbers import show_number
from conceptbench.engine.figures.svg import BASE_COLOUR, SOFT, drawing, group, line, text, ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 390, 250, 52, 16, 26, 40
DASHES = {"together": "", "in-turn": "6 4", "apart": "1.5 3.5"}
ONE = ""  # in place of the mode of a single target
SHIFT = 5.0  # pixels between erasers at one number, so that their intervals do not hide each other
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """A headline value of one eraser on one task; ``mode`` is empty where there is one target."""

    who: str
    mode: str
    targets: int
    value: float
    low: float | None
    high: float | None
    task: str


@dataclass(frozen=True)
class Panel:
    """One headline metric over all concepts of its role."""

    metric: str
    role: Literal["target", "retained"]
    unit: str
    points: tuple[Point, ...]


def panels_of(rows: Sequence[Row], suite: Suite, order: Sequence[str]) -> list[Panel]:
    """A panel each for what is erased and what is kept; none if all tasks have one number of targets and one mode, or bring some back.

    Args:
        rows: all rows of the run, each with ``who``, the name of its model.
        suite: its tasks say how many targets there are and how they are erased.
        order: erasers from first to last; others are left out.
    """
    tasks = {t.id: t for t in suite.tasks if not t.restored}
    if len({(len(t.targets), _mode(t)) for t in tasks.values()}) < 2:
        return []
    wanted: tuple[tuple[str, Literal["target", "retained"]], ...] = ((suite.headline.erased, "target"), (suite.headline.kept, "retained"))
    panels = []
    for metric, role in wanted:
        chosen = [r for r in rows if (r["metric"], r["role"], r["concept"]) == (metric, role, "*") and r["task"] in tasks and r["who"] in order]
        found = [_point(r, tasks[r["task"]]) for r in chosen if r["value"] is not None]
        if found:
            panels.append(Panel(metric, role, chosen[0]["unit"], tuple(sorted(found, key=lambda p: (order.index(p.who), p.mode, p.targets)))))
    return panels


def _mode(task: Task) -> str:
    """How several targets were erased; a single one is the same in every mode."""
    return task.mode if len(task.targets) > 1 else ONE


def _point(row: Row, task: Task) -> Point:
    return Point(row["who"], _mode(task), len(task.targets), row["value"], row["ci_low"], row["ci_high"], task.id)


def _lines(panel: Panel) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(eraser, mode) -> (targets, mean over tasks), for modes with at least two numbers of targets; a single one belongs to every mode."""
    found = {}
    for who, mode in dict.fromkeys((p.who, p.mode) for p in panel.points if p.mode != ONE):
        by_number: dict[int, list[float]] = {}
        for point in panel.points:
            if point.who == who and point.mode in (mode, ONE):
                by_number.setdefault(point.targets, []).append(point.value)
        if len(by_number) > 1:
            found[who, mode] = [(n, sum(values) / len(values)) for n, values in sorted(by_number.items())]
    return found


def panel_svg(panel: Panel, palette: Mapping[str, str]) -> Markup:
    """The figure of one panel: a line an eraser and mode through the means over tasks of that number, every task a dot with its interval.

    Args:
        panel: of :func:`panels_of`.
        palette: eraser -> colour.
    """
    numbers = sorted({p.targets for p in panel.points})
    bounds = [v for p in panel.points for v in (p.value, p.low, p.high) if v is not None]
    low, high = (0.0, 1.0) if panel.unit == "rate" else (min(0.0, *bounds), max(bounds))
    high = high if high > low else low + 1
    whos = list(dict.fromkeys(p.who for p in panel.points))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(numbers) - 1 + 0.5)

    def x(number: int, who: str) -> float:
        return LEFT + step * (numbers.index(number) + 0.25) + SHIFT * (whos.index(who) - (len(whos) - 1) / 2)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = []
    for tick in ticks(low, high):
        parts += [line(LEFT, y(tick), WIDTH - RIGHT, y(tick)), text(LEFT - 6, y(tick) + 4, show_number(tick, panel.unit), size=10.5, anchor="end", fill=SOFT)]
    parts += [text(LEFT + step * (i + 0.25), HEIGHT - BOTTOM + 16, n, anchor="middle", fill=SOFT) for i, n in enumerate(numbers)]
    parts += [line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, stroke=SOFT), line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, stroke=SOFT)]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "targets", anchor="middle"))
    parts.append(text(LEFT, 15, f"{panel.metric} of what is {'erased' if panel.role == 'target' else 'kept'}", size=12))
    for (who, mode), means in _lines(panel).items():
        colour = palette.get(who, BASE_COLOUR)
        for (n, mean), (after, other) in itertools.pairwise(means):
            parts.append(line(x(n, who), y(mean), x(after, who), y(other), stroke=colour, width=1.8, dash=DASHES[mode]))
    parts += [_dot(p, x(p.targets, p.who), y, palette.get(p.who, BASE_COLOUR), panel.unit) for p in panel.points]
    return drawing(WIDTH, HEIGHT, f"{panel.metric} by number of targets", parts)


def _dot(point: Point, at: float, y: Any, colour: str, unit: str) -> str:
    """A value with its interval: hollow where targets were erased in turn, a hollow square where they were erased apart."""
    marks = []
    if point.low is not None and point.high is not None:
        marks.append(line(at, y(point.low), at, y(point.high), stroke=colour, opacity=0.45))
    paint = f'fill="{"#fff" if point.mode in ("in-turn", "apart") else colour}" stroke="{colour}" stroke-width="1.5"'
    if point.mode == "apart":
        marks.append(f'<rect x="{at - 3:.1f}" y="{y(point.value) - 3:.1f}" width="6" height="6" {paint}/>')
    else:
        marks.append(f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="3.2" {paint}/>')
    interval = "" if point.low is None or point.high is None else f" [{show_number(point.low, unit)}, {show_number(point.high, unit)}]"
    return group(marks, f"{point.who}, {point.task} ({point.mode or 'one target'}): {show_number(point.value, unit)}{interval}")
