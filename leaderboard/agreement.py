"""Do published and measured numbers put the methods in the same order? Kendall's tau-b with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conceptbench.engine.images import BASE
from conceptbench.leaderboard.cells import FilledTable, Measured

DRAWS = 2000
SEED = 20260
NORMAL = 1.959963984540054  # standard deviations from the middle to the end of a 95 % interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b, pooled over lines.

    Attributes:
        tau: in [-1, 1]; None if there is no pair of methods that both sides tell apart.
        low, high: 95 % of its draws; None where tau is.
        methods: how many, at most, are in a line.
        lines: columns (or rows) with at least two methods.
        pairs: of methods, over all lines.
    """

    tau: float | None
    low: float | None
    high: float | None
    methods: int
    lines: int
    pairs: int


Line = list[tuple[float, Measured]]
"""Published and measured of the cells that differ in the method only."""


def agreement_of(table: FilledTable) -> Agreement:
    """The agreement over all lines of a table.

    A line holds the cells that differ in the method only. The unmodified model is no method, and everything differs from it: it is
    left out. Concordant and discordant pairs and ties are counted within lines and added up before tau-b is taken. The interval is
    of the measurement alone: measured values are drawn 2000 times from their 95 % intervals (each half a normal distribution as wide
    as its side of the interval, without one the value itself), the published ones stay. Draws are independent, although methods are
    measured on the same prompts, so the interval is rather too wide. They break ties (two methods at 100 %), which can move all of
    them to one side of the value: the interval then reaches to it. Which end is better does not matter: it is the same for both sides.
    """
    return _pooled(list(_lines(table).values()))


def agreement_parts(table: FilledTable) -> dict[str, Agreement]:
    """The agreement of each column alone; of each row, where the methods are columns."""
    side = 1 if table.spec.methods.startswith("rows") else 0
    parts: dict[str, list[Line]] = {}
    for rest, line in _lines(table).items():
        parts.setdefault(rest[side], []).append(line)
    return {label: _pooled(lines) for label, lines in parts.items()}


def _lines(table: FilledTable) -> dict[tuple[str, str], Line]:
    lines: dict[tuple[str, str], Line] = {}
    for cell in table.cells:
        if cell.published is None or cell.measured is None or cell.measured.value is None or cell.measured.row.eraser == BASE:
            continue
        lines.setdefault(table.methods(cell)[1], []).append((cell.published.value, cell.measured))
    return lines


def _pooled(lines: Sequence[Line]) -> Agreement:
    kept = [line for line in lines if len(line) > 1]
    if not kept:
        return Agreement(None, None, None, 0, 0, 0)
    published = [np.array([p for p, _ in line]) for line in kept]
    tau = pooled_tau(published, [np.array([[m.value for _, m in line]], float) for line in kept])[0]
    sizes = [len(line) for line in kept]
    counts = (max(sizes), len(kept), sum(n * (n - 1) // 2 for n in sizes))
    if np.isnan(tau):
        return Agreement(None, None, None, *counts)
    generator = np.random.default_rng(SEED)
    drawn = pooled_tau(published, [_draws([m for _, m in line], generator) for line in kept])
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Agreement(float(tau), min(float(low), float(tau)), max(float(high), float(tau)), *counts)


def _draws(measured: Sequence[Measured], generator: np.random.Generator) -> Floats:
    """(DRAWS, methods) values from the measured intervals."""
    values = np.array([m.value for m in measured], float)
    below, above = (
        np.array([0.0 if end is None else abs(end - v) / NORMAL for v, end in zip(values, ends, strict=True)])
        for ends in ([m.low for m in measured], [m.high for m in measured])
    )
    z = generator.standard_normal((DRAWS, len(values)))
    return values + np.where(z < 0, below, above) * z


def pooled_tau(published: Sequence[Floats], measured: Sequence[Floats]) -> Floats:
    """Kendall's tau-b over several lines.

    Args:
        published: (methods,) a line.
        measured: (draws, methods) a line.

    Returns:
        (draws,); NaN where no pair is told apart by one side.
    """
    concordance, left, right = np.zeros(len(measured[0])), 0.0, np.zeros(len(measured[0]))
    for p, m in zip(published, measured, strict=True):
        i, j = np.triu_indices(len(p), 1)
        a, b = np.sign(p[i] - p[j]), np.sign(m[:, i] - m[:, j])
        concordance = concordance + b @ a
        left += np.abs(a).sum()
        right += np.abs(b).sum(1)
    with np.errstate(invalid="ignore"):
        tau: Floats = concordance / np.sqrt(left * right)
    return tau
