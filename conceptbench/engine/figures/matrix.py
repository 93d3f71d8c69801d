"""The erased x evaluated matrix: for each eraser, how much of every evaluated concept is still there after each erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conceptbench.core.schemas import Suite, Task
from conceptbench.engine.groups import ROLES
from conceptbench.engine.images import BASE

LIGHT, DARK = (250, 251, 252), (0, 84, 98)
WHITE_FROM = 0.75  # above, white ink has a contrast of at least 4.5; up to there black has


@dataclass(frozen=True)
class Cell:
    """One concept after one erasure.

    Attributes:
        text: the share in per cent, or empty where nothing was measured.
        tooltip: value, interval, n and metric, or the reason why there is no value.
        own: whether the concept is what was erased.
        background, ink: colours.
    """

    text: str = ""
    tooltip: str = ""
    own: bool = False
    background: str = ""
    ink: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a matrix: what was erased (the base: nothing), and a cell for each of the matrix's columns."""

    label: str
    tooltip: str
    is_base: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """The matrix of one eraser."""

    eraser: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def shade(value: float) -> tuple[str, str]:
    """Background and ink for a share in [0, 1]: the more is there, the darker; the ink always contrasts."""
    v = min(max(value, 0.0), 1.0)
    red, green, blue = (round(a + (b - a) * v) for a, b in zip(LIGHT, DARK, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}", "#ffffff" if v > WHITE_FROM else "#000000"


def still_there(row: Mapping[str, Any]) -> tuple[float, float | None, float | None]:
    """The share of images in which the judge still sees the concept, with its interval.

    That is the value of a kept concept's rate, and of an erased one's rate for which less is better (exposure); it is one minus
    it where more is better for what was erased (ESR), or less for what was kept.
    """
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if (row["role"] == "target") == (row["better"] == "lower"):
        return value, low, high
    return 1 - value, None if high is None else 1 - high, None if low is None else 1 - low


def _headline(rows: Sequence[Mapping[str, Any]], suite: Suite) -> list[Mapping[str, Any]]:
    wanted = {(role, suite.headline.erased if role == "target" else suite.headline.kept) for role in ROLES}
    return [r for r in rows if (r["role"], r["metric"]) in wanted and r["concept"] != "*"]


def _cell(row: Mapping[str, Any] | None, own: bool) -> Cell:
    if row is None:
        return Cell(own=own)
    if row["value"] is None:
        return Cell("–", row["reason"] or "no value", own)
    value, low, high = still_there(row)
    interval = "no interval" if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f}"
    origin = row["metric"] if value == row["value"] else f"100 − {row['metric']}"
    tooltip = f"{row['concept']}: {100 * value:.1f} ({interval}), n {row['n_scored']}, {origin}"
    tooltip += f", {row['role']}" if row["role"] in ("restored", "unseen") else ""
    return Cell(f"{100 * value:.0f}", tooltip, own, *shade(value))


def _columns(suite: Suite, measured: set[str]) -> tuple[str, ...]:
    """Targets in the order of the tasks, so that what was erased lies on the diagonal; then what was only kept."""
    names = [c for t in suite.tasks for c in t.erased] + [c for t in suite.tasks for c in t.kept]
    return tuple(c for c in dict.fromkeys(names) if c in measured)


def _labels(tasks: Sequence[Task]) -> dict[str, str]:
    """Task -> what its line is called: by what was erased; by its id where something is brought back, or where two lines would be called alike."""
    names = {t.id: " + ".join(t.targets) if len(t.targets) <= 2 else f"{t.id} ({len(t.targets)} concepts)" for t in tasks}
    names |= {t.id: t.id for t in tasks if t.restored}
    return {t.id: t.id if any(names[t.id] in (names[o.id], o.id) for o in tasks if o is not t) else names[t.id] for t in tasks}


def _line(task: Task, label: str, who: str, columns: Sequence[str], rows: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> Line:
    cells = tuple(_cell(rows.get((task.id, who, c)), c in task.erased) for c in columns)
    mode = f" ({task.mode})" if len(task.targets) > 1 else ""
    back = f", {', '.join(task.restored)} brought back" if task.restored else ""
    return Line(label, f"task {task.id}: {', '.join(task.targets)} erased{mode}{back}", False, cells)


def matrices(rows: Sequence[Mapping[str, Any]], suite: Suite, erasers: Sequence[str]) -> list[Matrix]:
    """One matrix an eraser; none if a headline metric is no rate, because its cells would not be on one scale.

    Args:
        rows: all rows of the run, each with ``who``, the name of its model.
        suite: its tasks are the lines, its concepts the columns.
        erasers: names in the order of the line-up.

    Returns:
        Matrices whose first line is the base: a concept's value in the first task that measures it.
    """
    chosen = _headline(rows, suite)
    if not chosen or any(r["unit"] != "rate" for r in chosen):
        return []
    by_place = {(r["task"], r["who"], r["concept"]): r for r in reversed(chosen)}
    columns = _columns(suite, {r["concept"] for r in chosen})
    of_base = {r["concept"]: r for t in reversed(suite.tasks) for r in reversed(chosen) if r["who"] == BASE and r["task"] == t.id}
    first = Line("base", "the unmodified model: nothing erased", True, tuple(_cell(of_base.get(c), False) for c in columns))
    labels = _labels(suite.tasks)
    return [Matrix(who, columns, (first, *(_line(t, labels[t.id], who, columns, by_place) for t in suite.tasks))) for who in erasers]
