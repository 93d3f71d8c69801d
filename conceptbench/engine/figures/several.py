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
SHIFT = 5.0  # pixels between erasers at one number, so that their intervals do not hide each other
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """A headline value of one eraser on one task."""

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
    """A panel each for what is erased and what is kept; none if all tasks have one number of targets, or bring some back.

    Args:
        rows: all rows of the run, each with ``who``, the name of its model.
        suite: its tasks say how many targets there are and how they are erased.
        order: erasers from first to last.
    """
    tasks = {t.id: t for t in suite.tasks if not t.restored}
    if len({len(t.targets) for t in tasks.values()}) < 2:
        return []
    wanted: tuple[tuple[str, Literal["target", "retained"]], ...] = ((suite.headline.erased, "target"), (suite.headline.kept, "retained"))
    panels = []
    for metric, role in wanted:
        chosen = [r for r in rows if (r["metric"], r["role"], r["concept"]) == (metric, role, "*") and r["task"] in tasks and r["who"] in order]
        found = tuple(p for r in chosen for p in _points(r, tasks[r["task"]]))
        if found:
            panels.append(Panel(metric, role, chosen[0]["unit"], tuple(sorted(found, key=lambda p: (order.index(p.who), p.mode, p.targets)))))
    return panels


def _points(row: Row, task: Task) -> list[Point]:
    """The row's point; that of a single target stands in every mode, because there they are one."""
    if row["value"] is None:
        return []
    modes = list(DASHES) if len(task.targets) == 1 else [task.mode]
    return [Point(row["who"], m, len(task.targets), row["value"], row["ci_low"], row["ci_high"], task.id) for m in modes]


def _lines(panel: Panel) -> dict[tuple[str, str], list[tuple[int, float, list[Point]]]]:
    """(eraser, mode) -> (targets, mean over tasks, their points), for modes with at least two numbers of targets."""
    grouped: dict[tuple[str, str], dict[int, list[Point]]] = {}
    for point in panel.points:
        grouped.setdefault((point.who, point.mode), {}).setdefault(point.targets, []).append(point)
    return {
        who: [(n, sum(p.value for p in points) / len(points), points) for n, points in sorted(by_number.items())]
        for who, by_number in grouped.items()
        if len(by_number) > 1
    }


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
        for (n, mean, _), (after, other, _) in itertools.pairwise(means):
            parts.append(line(x(n, who), y(mean), x(after, who), y(other), stroke=colour, width=1.8, dash=DASHES[mode]))
        for n, _, points in means:
            parts += [_dot(p, x(n, who), y, colour, panel.unit) for p in points]
    return drawing(WIDTH, HEIGHT, f"{panel.metric} by number of targets", parts)


def _dot(point: Point, at: float, y: Any, colour: str, unit: str) -> str:
    """A value with its interval; hollow unless the targets were erased together."""
    marks = []
    if point.low is not None and point.high is not None:
        marks.append(line(at, y(point.low), at, y(point.high), stroke=colour, opacity=0.45))
    fill = colour if point.mode == "together" else "#fff"
    marks.append(f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="3.2" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>')
    interval = "" if point.low is None or point.high is None else f" [{show_number(point.low, unit)}, {show_number(point.high, unit)}]"
    return group(marks, f"{point.who}, {point.task} ({point.mode}): {show_number(point.value, unit)}{interval}")
