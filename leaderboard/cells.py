"""Fills a table: for every cell the published number and the one measured result row that it asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conceptbench.core.errors import NotComparableError, UserInputError
from conceptbench.core.results import TIMED_FIELDS, ResultRow
from conceptbench.engine.images import BASE
from conceptbench.leaderboard.published import LEVELS, Cell
from conceptbench.leaderboard.specs import COUNTS, RUN, Combine, Line, TableSpec, Tier, cells_of, conditions_of, matches, printed_like, published_of

Dumped = Mapping[str, Any]
BESIDE = (*TIMED_FIELDS, "suite_sha256")
"""What two rows of one measurement may differ in: runs of one suite with other tasks have its base in common, but not its hash."""


@dataclass(frozen=True)
class Measured:
    """A measured number as the table shows it, already scaled.

    Attributes:
        value: None where the row has none; ``reason`` says why.
        low, high: the 95 % interval; None where there is none.
        spread: what stands behind ±; None if it is not shown.
        digits: behind the point.
        row: where it is from.
    """

    value: float | None
    low: float | None
    high: float | None
    spread: float | None
    digits: int
    row: ResultRow


@dataclass(frozen=True)
class TableCell:
    """One cell.

    Attributes:
        row, column: labels.
        published: None where there is no published table.
        measured: None where no result row is there.
        defined: the value and its digits of what needs no measuring: the unmodified model beside itself.
    """

    row: str
    column: str
    published: Cell | None
    measured: Measured | None
    defined: tuple[float, int] | None = None

    @property
    def outside(self) -> bool | None:
        """Whether the published number is outside of the measured interval; None where either is missing, or the measurement is not whole."""
        m, p = self.measured, self.published
        if m is None or p is None or m.low is None or m.high is None or m.row.status != "ok":
            return None
        half = 0.5 * 10.0 ** -len(p.text.partition(".")[2])  # printed numbers are rounded
        return not m.low - half <= p.value <= m.high + half


@dataclass(frozen=True)
class FilledTable:
    """A table with what there is.

    Attributes:
        spec, tier: which.
        cells: row by row.
    """

    spec: TableSpec
    tier: Tier
    cells: tuple[TableCell, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """Labels of the rows, in order."""
        return tuple(dict.fromkeys(line.label for line in self.spec.lines("rows", self.tier) if line.label in {c.row for c in self.cells}))

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of the columns, in order."""
        return tuple(dict.fromkeys(line.label for line in self.spec.lines("columns", self.tier) if line.label in {c.column for c in self.cells}))

    @property
    def measured(self) -> list[ResultRow]:
        """The result rows behind it."""
        return [c.measured.row for c in self.cells if c.measured is not None]

    def cell(self, row: str, column: str) -> TableCell | None:
        """The cell with these labels; None if the table has none there."""
        return next((c for c in self.cells if (c.row, c.column) == (row, column)), None)

    def methods(self, cell: TableCell) -> tuple[str, tuple[str, str]]:
        """The method of a cell, and the rest of its labels: cells with the same rest are ranked against each other."""
        axis, _, level = self.spec.methods.partition(".")
        levels = {"rows": cell.row.split(LEVELS), "columns": cell.column.split(LEVELS)}
        method = levels[axis].pop(int(level))
        return method, (LEVELS.join(levels["rows"]), LEVELS.join(levels["columns"]))


def fill(spec: TableSpec, tier: Tier, results: Mapping[str, Sequence[ResultRow]], *, force: bool = False) -> FilledTable:
    """Finds the result row of every cell.

    Args:
        spec: the table.
        tier: which of its forms.
        results: id of a run -> its rows; runs that are missing leave cells empty.
        force: let rows of different protocol or suite version share a column.

    Raises:
        UserInputError: several rows fit a cell; the fields by which they differ are named.
        NotComparableError: a column would mix protocols or major versions of a suite.
    """
    spec.tier(tier)
    published, pool = published_of(spec), _pool(results)
    digits: dict[str, int] = {}  # a column has as many as its most exact number: 100 stands beside 95.5
    for one in published.cells if published else ():
        digits[one.column] = max(digits.get(one.column, 0), len(one.text.partition(".")[2]))
    cells = []
    for row, column in cells_of(spec, tier):
        printed = None if published is None else published.cell(row.label, column.label)
        like = printed_like(spec, row, column)
        found, usual = _the_row(pool, spec, tier, row, column), digits.get(column.label)
        measured = None if found is None else _measured(found, row, column, like, usual)
        of_base = bool(pool) and any(w.get("eraser") == BASE for w in conditions_of(spec, tier, row, column))
        unchanged = _option(row, column, "unchanged") if of_base and found is None else None
        cells.append(TableCell(row.label, column.label, printed, measured, None if unchanged is None else (unchanged, usual or 0)))
    table = FilledTable(spec, tier, tuple(cells))
    if not force:
        _check_comparable(table)
    return table


def _pool(results: Mapping[str, Sequence[ResultRow]]) -> list[tuple[Dumped, ResultRow]]:
    return [({RUN: run, **row.model_dump()}, row) for run, rows in results.items() for row in rows]


def _option(row: Line, column: Line, name: str) -> Any:
    """An option of a cell: the column's, else the row's."""
    own = column.option(name)
    return row.option(name) if own is None else own


def _the_row(pool: Sequence[tuple[Dumped, ResultRow]], spec: TableSpec, tier: Tier, row: Line, column: Line) -> ResultRow | None:
    where = conditions_of(spec, tier, row, column)
    found: dict[str, tuple[Dumped, ResultRow]] = {}
    for values, one in pool:
        if matches(values, where):
            found.setdefault(one.model_copy(update=dict.fromkeys(BESIDE)).model_dump_json(), (values, one))  # the base is in every run of a suite
    combine = _option(row, column, "combine")
    if combine is not None and found:
        return _combined([one for _, one in found.values()], combine)
    if len(found) > 1:
        several = [values for values, _ in found.values()]
        names = [k for k in several[0] if len({str(v[k]) for v in several}) > 1]
        shown = "; ".join(f"{k}: {', '.join(dict.fromkeys(str(v[k]) for v in several))}" for k in names[:6])
        raise UserInputError(
            f"table {spec.id}: {len(several)} result rows fit the cell {row.label!r}, {column.label!r}; they differ in {shown}",
            "add one of these fields to the `where` of the row or the column, or say how they `combine`",
        )
    return next((one for _, one in found.values()), None)


def _combined(rows: Sequence[ResultRow], how: Combine) -> ResultRow:
    """Several independent rows as one; half-widths of intervals add up as squares. Without a value if one of them has none."""
    if how.startswith("contrast"):  # the row over all targets repeats them
        rows = [r for r in rows if (r.role, r.concept) != ("target", "*")]
    weights = _weights(rows, how)
    counts = {name: sum(getattr(r, name) for r in rows) for name in ("n_planned", "n_scored", "n_failed", "clusters")}
    nothing = dict.fromkeys(("value", "ci_low", "ci_high", "delta", "delta_low", "delta_high", "spread"))
    values = [r.value for r in rows if r.value is not None]
    if len(values) < len(rows):
        return rows[0].model_copy(update={**counts, **nothing, "reason": "one of the rows behind it has no value"})
    total = math.fsum(w * v for w, v in zip(weights, values, strict=True))
    # of what is subtracted, the upper end lowers the result
    below, above = (
        _half_width([(w, r.value, getattr(r, ends[w < 0])) for w, r in zip(weights, rows, strict=True)])
        for ends in (("ci_low", "ci_high"), ("ci_high", "ci_low"))
    )
    found = {} if below is None or above is None else {"ci_low": total - below, "ci_high": total + above}
    return rows[0].model_copy(update={**counts, **nothing, "value": total, **found})


def _weights(rows: Sequence[ResultRow], how: Combine) -> list[float]:
    if how in ("sum", "mean"):
        return [1.0 if how == "sum" else 1 / len(rows)] * len(rows)
    others = sum(r.role != "target" for r in rows)
    return [1.0 if r.role == "target" else -1.0 if how == "contrast" else -1 / others for r in rows]


def _half_width(parts: Sequence[tuple[float, float | None, float | None]]) -> float | None:
    gaps = [w * (end - value) for w, value, end in parts if value is not None and end is not None]
    return math.sqrt(math.fsum(g * g for g in gaps)) if len(gaps) == len(parts) else None


def _measured(row: ResultRow, line: Line, column: Line, printed: Cell | None, usual: int | None) -> Measured:
    """Scale and spread as the published number has them, digits as its column has, unless the spec says otherwise."""
    scale, digits, spread = (_option(line, column, name) for name in ("scale", "digits", "spread"))
    field = _option(line, column, "value") or "value"
    if scale is None:
        scale = 100.0 if field not in COUNTS and row.unit == "rate" and (printed is None or printed.unit == "%") else 1.0
    if digits is None:
        digits = usual if usual is not None else 1 if row.unit == "rate" else 3
    spread = (printed is not None and printed.spread is not None) if spread is None else spread
    ends = {"value": ("ci_low", "ci_high"), "delta": ("delta_low", "delta_high")}.get(field, (None, None))
    low, high = (None if end is None else getattr(row, end) for end in ends)

    def scaled(value: Any) -> float | None:
        return None if value is None else scale * float(value)

    return Measured(scaled(getattr(row, field)), scaled(low), scaled(high), scaled(row.spread) if spread else None, digits, row)


def _check_comparable(table: FilledTable) -> None:
    """No column, and no line of methods, mixes protocols of one metric or major versions of a suite.

    Where rows stand apart, each first level is on its own.
    """
    seen: dict[tuple[str, ...], tuple[TableCell, str]] = {}
    for cell in table.cells:
        if cell.measured is None:
            continue
        row = cell.measured.row
        group = (cell.row.split(LEVELS)[0],) if table.spec.apart else ()
        for key, text in (
            ((*group, cell.column, row.metric, "protocol"), row.protocol),
            ((*group, *table.methods(cell)[1], row.metric, "protocol"), row.protocol),
            ((*group, row.suite, "version"), row.suite_version.partition(".")[0]),
            ((*group, "status"), "development" if row.status == "development" else "held out"),
        ):
            first, other = seen.setdefault(key, (cell, text))
            if other != text:
                raise NotComparableError(
                    f"table {table.spec.id}: {key[-1]} is {other} in {first.row!r}, {first.column!r} and {text} in {cell.row!r}, {cell.column!r}",
                    "such numbers do not compare; --force shows them side by side",
                )
