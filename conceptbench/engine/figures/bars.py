"""Bars by concept and eraser with their intervals, the base as a thin line, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conceptbench.engine.figures.numbers import show_number
from conceptbench.engine.figures.svg import BASE_COLOUR, INK, SOFT, drawing, group, line, shortened, text, ticks
from conceptbench.engine.images import BASE

LEFT, PLOT, RIGHT, TOP, BOTTOM = 118, 400, 46, 8, 40
BAR, GAP = 11, 12  # pixels: a bar's height, and the space between two concepts


@dataclass(frozen=True)
class Group:
    """One concept: the base's value and each eraser's row."""

    concept: str
    base: float | None
    rows: tuple[Mapping[str, Any], ...]


def groups_of(rows: Sequence[Mapping[str, Any]], metric: str, role: str, order: Sequence[str], concepts: Sequence[str]) -> list[Group]:
    """The concepts of a role for which a metric has rows of erasers.

    Args:
        rows: of one task, each with ``who``, the name of its model.
        metric: its id.
        role: of the concepts.
        order: erasers from first to last.
        concepts: the concepts from first to last.
    """
    groups = []
    for concept in concepts:
        by_who = {r["who"]: r for r in rows if (r["metric"], r["role"], r["concept"]) == (metric, role, concept)}
        bars = tuple(by_who[w] for w in order if w in by_who and w != BASE)
        if bars:
            groups.append(Group(concept, by_who[BASE]["value"] if BASE in by_who else None, bars))
    return groups


def _range(groups: Sequence[Group], unit: str) -> tuple[float, float]:
    if unit == "rate":
        return 0.0, 1.0
    bounds = [v for g in groups for r in g.rows for v in (r["value"], r["ci_low"], r["ci_high"]) if v is not None]
    bounds += [g.base for g in groups if g.base is not None] + [0.0]
    low, high = min(bounds), max(bounds)
    return (low, high) if high > low else (low, low + 1)


class _Scale:
    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        return LEFT + (value - self.low) / (self.high - self.low) * PLOT


def _bar(row: Mapping[str, Any], top: float, x: _Scale, colour: str) -> str:
    middle, end = top + BAR / 2, LEFT + PLOT + 6
    if row["value"] is None:
        return group([text(end, middle + 3.5, "–", size=10, fill=SOFT)], f"{row['who']}, {row['concept']}: {row['reason'] or 'no value'}")
    unit, zero = row["unit"], x(max(x.low, 0.0))
    start, width = min(zero, x(row["value"])), abs(x(row["value"]) - zero)
    parts = [f'<rect x="{start:.1f}" y="{top + 1:.1f}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}" fill-opacity=".8"/>']
    interval = "no interval"
    if row["ci_low"] is not None and row["ci_high"] is not None:
        parts.append(line(x(row["ci_low"]), middle, x(row["ci_high"]), middle, stroke=INK, width=1.1, opacity=0.75))
        interval = f"{show_number(row['ci_low'], unit)} – {show_number(row['ci_high'], unit)}"
    parts.append(text(end, middle + 3.5, show_number(row["value"], unit), size=10, fill=SOFT))
    return group(parts, f"{row['who']}, {row['concept']}: {show_number(row['value'], unit)} ({interval}), n {row['n_scored']}")


def _concept(entry: Group, top: float, x: _Scale, palette: Mapping[str, str], unit: str) -> str:
    height = len(entry.rows) * BAR
    parts = [group([text(LEFT - 8, top + height / 2 + 4, shortened(entry.concept, 17), size=12, anchor="end")], entry.concept)]
    parts += [_bar(row, top + i * BAR, x, palette.get(row["who"], BASE_COLOUR)) for i, row in enumerate(entry.rows)]
    if entry.base is not None:
        mark = line(x(entry.base), top - 4, x(entry.base), top + height + 4, stroke=INK, width=1.5, dash="3 2")
        parts.append(group([mark], f"base, {entry.concept}: {show_number(entry.base, unit)}"))
    return "".join(parts)


def bars_svg(groups: Sequence[Group], metric: str, palette: Mapping[str, str]) -> Markup:
    """The figure, or nothing where there is no group; labels are escaped.

    Args:
        groups: the concepts.
        metric: its id, for the axis.
        palette: eraser -> colour.
    """
    if not groups:
        return Markup("")
    unit = groups[0].rows[0]["unit"]
    x = _Scale(*_range(groups, unit))
    height = TOP + sum(len(g.rows) * BAR + GAP for g in groups) + BOTTOM
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1) if unit == "rate" else ticks(x.low, x.high):
        parts.append(line(x(tick), TOP, x(tick), height - BOTTOM))
        parts.append(text(x(tick), height - BOTTOM + 15, f"{100 * tick:.0f}" if unit == "rate" else f"{tick:g}", anchor="middle", fill=SOFT))
    top = TOP + GAP / 2
    for entry in groups:
        parts.append(_concept(entry, top, x, palette, unit))
        top += len(entry.rows) * BAR + GAP
    better = {"higher": " (higher is better)", "lower": " (lower is better)"}.get(groups[0].rows[0]["better"], "")
    parts.append(text(LEFT + PLOT / 2, height - 8, f"{metric}{' %' if unit == 'rate' else ''}{better}", size=12, anchor="middle"))
    return drawing(LEFT + PLOT + RIGHT, height, f"{metric} by concept and eraser", parts)
