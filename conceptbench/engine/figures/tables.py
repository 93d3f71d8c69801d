"""The tables of a task: headline numbers of every model side by side, all rows by concept, and what an erasure is and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conceptbench.core.schemas import Suite, Task
from conceptbench.engine import groups

Row = Mapping[str, Any]
ROLES = (*groups.ROLES, "model")
ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Column:
    """One metric on one role.

    Attributes:
        detail: what tells the column from another one of the same metric; else empty.
        count: how many images each number is of, where that is the same for all; else empty.
    """

    metric: str
    detail: str
    role: str
    arrow: str
    protocol: str
    unit: str
    count: str


@dataclass(frozen=True)
class Line:
    """One model: a row for each column, None where there is none."""

    who: str
    preset: str
    cells: tuple[Row | None, ...]


@dataclass(frozen=True)
class Table:
    """Models by metrics."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def _place(value: str, known: Sequence[str]) -> int:
    return known.index(value) if value in known else len(known)


def _metric_place(metric: str, suite: Suite) -> int:
    """Where the suite lists the metric that a row's id belongs to: ids begin with the registered name."""
    return next((i for i, m in enumerate(suite.metrics) if metric == m.metric or metric.startswith(f"{m.metric}-")), len(suite.metrics))


def in_suite_order(rows: Sequence[Row], suite: Suite, task: Task, order: Sequence[str]) -> list[Row]:
    """A task's rows sorted by model, concept, metric and role as the suite and the line-up list them; else they keep their order."""
    concepts = ("*", *task.erased, *task.kept)

    def key(row: Row) -> tuple[int, ...]:
        return _place(row["who"], order), _place(row["concept"], concepts), _metric_place(row["metric"], suite), _place(row["role"], ROLES)

    return sorted((r for r in rows if r["task"] == task.id), key=key)


def _column(row: Row, rows: Sequence[Row]) -> Column:
    alike = {r["protocol"] for r in rows if r["metric"] == row["metric"]}
    counts = {r["n_scored"] for r in rows if (r["protocol"], r["role"]) == (row["protocol"], row["role"]) and r["value"] is not None}
    detail = row["protocol"].partition("@")[2] if len(alike) > 1 else ""
    count = f"n {counts.pop()}" if len(counts) == 1 and row["role"] != "model" else ""
    return Column(row["metric"], detail, row["role"], ARROWS.get(row["better"], ""), row["protocol"], row["unit"], count)


def table(rows: Sequence[Row], order: Sequence[str], suite: Suite) -> Table:
    """Rows over all concepts, one line a model and one column a metric and role.

    Args:
        rows: in the order of the suite, those of role ``model`` only or none of them.
        order: models from first to last; those without a row are left out.
        suite: orders the columns.
    """
    metrics = {(r["protocol"], r["role"]): r["metric"] for r in rows}
    keys = sorted(metrics, key=lambda k: _metric_place(metrics[k], suite))
    cells = {(r["who"], r["protocol"], r["role"]): r for r in reversed(rows)}
    presets = {r["who"]: r["preset"] for r in rows}
    columns = tuple(_column(next(r for r in rows if (r["protocol"], r["role"]) == k), rows) for k in keys)
    return Table(columns, tuple(Line(w, presets[w], tuple(cells.get((w, *k)) for k in keys)) for w in order if w in presets))


COSTS = (("seconds", "time to erase", "seconds"), ("peak_memory_mb", "peak memory", "MB"))
"""Fields of the cost that results keep beside their rows, with the name and unit to show them under."""


def cost_rows(costs: Sequence[Mapping[str, Any]], measured: Sequence[Row], task: str, names: Mapping[str, str]) -> list[Row]:
    """Rows for costs that the harness noted and that no metric of the suite measures.

    Args:
        costs: of all erasers and tasks: ``eraser``, ``task`` and numbers.
        measured: the task's rows; a unit that one of role ``model`` has is not shown twice.
        task: its id.
        names: an eraser's spec -> what it is called.
    """
    units = {r["unit"] for r in measured if r["role"] == "model"}
    rows: list[Row] = []
    for field, metric, unit in COSTS:
        for cost in costs:
            if unit in units or cost["task"] != task or cost.get(field) is None or cost["eraser"] not in names:
                continue
            same = {"metric": metric, "protocol": f"{field}@noted-while-erasing", "role": "model", "concept": "*", "better": "lower", "unit": unit}
            blank = {"ci_low": None, "ci_high": None, "ci_kind": "", "delta": None, "delta_low": None, "delta_high": None, "status": "ok", "reason": ""}
            model = {"who": names[cost["eraser"]], "preset": cost["eraser"].partition(":")[2], "n_scored": 1, "n_planned": 1, "clusters": 1}
            rows.append({**same, **blank, **model, "value": cost[field]})
    return rows
