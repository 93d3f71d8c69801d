"""Families of metrics that differ in one number only, as lines over that number: a rate by threshold, by k; as inline SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conceptbench.engine.figures.numbers import show_number
from conceptbench.engine.figures.svg import BASE_COLOUR, INK, SOFT, drawing, group, line, shortened, text, ticks
from conceptbench.engine.images import BASE

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 390, 250, 52, 16, 26, 44
LEAST = 3  # numbers that make a line worth drawing
EVERYTHING = "*"  # the row over all concepts
GAP = "…"  # stands for the number in a family's name
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NEAREST = 26  # px between two labels of the axis


@dataclass(frozen=True)
class Point:
    """One model's value at one number, with its interval where it has one."""

    number: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One model's points, by rising number."""

    who: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Family:
    """Metrics that differ in one number only, on one task.

    Attributes:
        name: the metrics' id with an ellipsis for the number, e.g. ``ner-…-kpop8``.
        judge: whom they ask; may be empty.
        role: of the rows.
        unit, better: of the values.
        numbers: the numbers, rising.
        lines: the base first if it is there, then the others in the order of the rows.
    """

    name: str
    judge: str
    role: str
    unit: str
    better: str
    numbers: tuple[float, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Member:
    number: float
    arithmetic: str
    row: Mapping[str, Any]


def _split(protocol: str, metric: str) -> tuple[str, str]:
    """Arithmetic and judge of ``metric@arithmetic/judge``."""
    arithmetic, _, judge = protocol.removeprefix(f"{metric}@").partition("/")
    return arithmetic, judge


def _places(metric: str) -> list[tuple[str, float]]:
    """Each number that is a part of an id by itself, and the id with the ellipsis in its place: ``kpop8`` has none."""
    parts = metric.split("-")
    return [("-".join([*parts[:i], GAP, *parts[i + 1 :]]), float(p)) for i, p in enumerate(parts) if i and NUMBER.fullmatch(p)]


def _agree(members: Sequence[_Member]) -> bool:
    """Whether the arithmetics are the same but for the members' own numbers: ``top1-of-10way`` and ``top5-of-10way`` are."""
    texts = {tuple(NUMBER.split(m.arithmetic)) for m in members}
    columns = zip(*([float(n) for n in NUMBER.findall(m.arithmetic)] for m in members), strict=False)
    own = [m.number for m in members]
    return len(texts) == 1 and all(len(set(column)) == 1 or list(column) == own for column in columns)


def _line(who: str, members: Sequence[_Member]) -> Line:
    found = [m for m in members if m.row["who"] == who and m.row["value"] is not None]
    points = (Point(m.number, m.row["value"], m.row["ci_low"], m.row["ci_high"]) for m in found)
    return Line(who, tuple(sorted(points, key=lambda p: p.number)))


def _base_line(members: Sequence[_Member]) -> Line:
    """The base's own rows, or what the others' rows say of it."""
    own = _line(BASE, members)
    if own.points:
        return own
    told = {m.number: m.row["base_value"] for m in members if m.row.get("base_value") is not None}
    return Line(BASE, tuple(Point(n, v, None, None) for n, v in sorted(told.items())))


def families_of(rows: Sequence[Mapping[str, Any]]) -> list[Family]:
    """The families with at least three numbers that have a value, in the order of the rows.

    Args:
        rows: of one task, each with ``who``, the name of its model; those over all concepts of a role count.
    """
    found: dict[tuple[str, str, str, str, str], list[_Member]] = {}
    for row in rows:
        if row["concept"] != EVERYTHING:
            continue
        arithmetic, judge = _split(row["protocol"], row["metric"])
        for name, number in _places(row["metric"]):
            key = (name, judge, str(row["role"]), str(row["unit"]), str(row["better"]))
            found.setdefault(key, []).append(_Member(number, arithmetic, row))
    families = []
    for key, members in found.items():
        models = [who for who in dict.fromkeys(m.row["who"] for m in members) if who != BASE]
        lines = [entry for entry in (_base_line(members), *(_line(who, members) for who in models)) if entry.points]
        numbers = sorted({p.number for entry in lines for p in entry.points})
        if len(numbers) >= LEAST and _agree(members):
            families.append(Family(*key, tuple(numbers), tuple(lines)))
    return families


def _bounds(family: Family) -> tuple[float, float]:
    """The vertical axis: from 0, or the lowest value below it, to a little above the highest; a rate's not above 1."""
    values = [v for entry in family.lines for p in entry.points for v in (p.value, p.low, p.high) if v is not None]
    low, high = min(0.0, *values), max(values)
    high = high + 0.06 * (high - low) if high > low else low + (0.1 if family.unit == "rate" else 1.0)
    return low, min(high, 1.0) if family.unit == "rate" else high


Axis = Callable[[float], float]


def _stretches(points: Sequence[Point], numbers: Sequence[float]) -> list[list[Point]]:
    """The points in stretches without a gap: a number that others have and this model has not begins a new one."""
    place = {number: i for i, number in enumerate(numbers)}
    stretches: list[list[Point]] = []
    for p in points:
        if stretches and place[p.number] == place[stretches[-1][-1].number] + 1:
            stretches[-1].append(p)
        else:
            stretches.append([p])
    return stretches


def _band(points: Sequence[Point], numbers: Sequence[float], x: Axis, y: Axis, colour: str) -> list[str]:
    """Stretches of points with intervals as bands; a single one as a whisker."""
    parts = []
    for stretch in _stretches([p for p in points if p.low is not None and p.high is not None], numbers):
        low = [(x(p.number), y(p.low or 0.0)) for p in stretch]
        high = [(x(p.number), y(p.high or 0.0)) for p in stretch]
        if len(stretch) == 1:
            parts.append(line(*low[0], *high[0], stroke=colour, width=1.1, opacity=0.75))
        else:
            parts.append(f'<path d="{_path([*high, *reversed(low)])}Z" fill="{colour}" fill-opacity=".13"/>')
    return parts


def _path(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{at:.1f} {level:.1f}" for at, level in corners)


def _drawn(entry: Line, family: Family, x: Axis, y: Axis, colour: str) -> str:
    dash = ' stroke-dasharray="5 3"' if entry.who == BASE else ""
    parts = _band(entry.points, family.numbers, x, y, colour)
    for stretch in _stretches(entry.points, family.numbers):
        if len(stretch) > 1:
            path = _path([(x(p.number), y(p.value)) for p in stretch])
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.7" stroke-linejoin="round"{dash}/>')
    for p in entry.points:
        interval = "no interval" if p.low is None or p.high is None else f"{show_number(p.low, family.unit)} – {show_number(p.high, family.unit)}"
        dot = f'<circle cx="{x(p.number):.1f}" cy="{y(p.value):.1f}" r="2.6" fill="{colour}"/>'
        parts.append(group([dot], f"{entry.who}, {family.name.replace(GAP, f'{p.number:g}')}: {show_number(p.value, family.unit)} ({interval})"))
    return group(parts)


def _number_axis(numbers: Sequence[float], x: Axis) -> list[str]:
    """Every number has a tick; one that would cover the label before it has no label."""
    parts, last = [], -math.inf
    for number in numbers:
        parts.append(line(x(number), HEIGHT - BOTTOM, x(number), HEIGHT - BOTTOM + 4, stroke=SOFT))
        if x(number) - last >= NEAREST:
            parts.append(text(x(number), HEIGHT - BOTTOM + 16, f"{number:g}", anchor="middle", fill=SOFT))
            last = x(number)
    return parts


def thresholds_svg(family: Family, palette: Mapping[str, str]) -> Markup:
    """The figure of one family; labels are escaped.

    Args:
        family: of :func:`families_of`.
        palette: eraser -> colour.
    """
    low, high = _bounds(family)
    first, last = family.numbers[0], family.numbers[-1]
    rate = family.unit == "rate"

    def x(number: float) -> float:
        return LEFT + 8 + (number - first) / (last - first) * (WIDTH - LEFT - RIGHT - 16)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = []
    for tick in ticks(low, high):
        parts += [line(LEFT, y(tick), WIDTH - RIGHT, y(tick)), text(LEFT - 6, y(tick) + 4, f"{100 * tick if rate else tick:g}", anchor="end", fill=SOFT)]
    parts += [line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, stroke=SOFT), line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, stroke=SOFT)]
    parts += _number_axis(family.numbers, x)
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, f"number in the place of {GAP}", anchor="middle"))
    title = f"{family.name}, {family.role}{', %' if rate else f', {family.unit}'}"
    note = {"higher": "higher is better", "lower": "lower is better"}.get(family.better, "")
    parts.append(group([text(LEFT, 15, shortened(title, 38), size=12)], f"{title} ({family.judge})" if family.judge else title))
    parts.append(text(WIDTH - RIGHT, 15, note, size=10, anchor="end", fill=SOFT))
    for entry in family.lines:
        parts.append(_drawn(entry, family, x, y, INK if entry.who == BASE else palette.get(entry.who, BASE_COLOUR)))
    return drawing(WIDTH, HEIGHT, f"{family.name} of {family.role} concepts by its number", parts)
