"""A filled table as texts: headers by level, published and measured side by side, footnotes, and how the numbers were got."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from conceptbench.core.results import ResultRow
from conceptbench.leaderboard.agreement import Agreement, agreement_of, agreement_parts
from conceptbench.leaderboard.cells import FilledTable, TableCell
from conceptbench.leaderboard.published import LEVELS

OUTSIDE = "†"
DEFINED = "‡"
NAMED, FIRST = 8, 3
"""As many protocols, or other names of one kind, are told at most below a table; of more, the first."""


@dataclass(frozen=True)
class Text:
    """What stands in one printed cell.

    Attributes:
        published: as the paper prints it, with the numbers of its footnotes; empty where there is none.
        measured: with ±; empty where nothing was measured.
        interval: ``[low, high]``; empty where there is none.
        notes: numbers of the footnotes.
    """

    published: str = ""
    measured: str = ""
    interval: str = ""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class GridRow:
    """A printed row: its label by level, the numbers of the footnotes of the whole row, its cells."""

    labels: tuple[str, ...]
    notes: tuple[int, ...]
    cells: tuple[Text, ...]


@dataclass(frozen=True)
class Column:
    """A printed column: its header by level, and the numbers of the footnotes of the whole column."""

    labels: tuple[str, ...]
    notes: tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """A table to print.

    Attributes:
        title: id and title.
        columns: all have as many levels.
        rows: all have as many levels.
        footnotes: what is wrong with published numbers; the first is number 1.
        facts: lines that say how the numbers were got.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]
    footnotes: tuple[str, ...]
    facts: tuple[str, ...]


def number(value: float | None, digits: int) -> str:
    """A number with so many digits; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def measured_text(cell: TableCell) -> tuple[str, str]:
    """Value and interval for people; both empty where nothing was measured."""
    m = cell.measured
    if m is None:
        return "" if cell.defined is None else number(*cell.defined) + DEFINED, ""
    value = number(m.value, m.digits) + ("" if m.spread is None else f" ± {number(m.spread, m.digits)}")
    value += f" ({m.row.status})" if m.row.status in ("partial", "failed") else ""
    return value, "" if m.low is None else f"[{number(m.low, m.digits)}, {number(m.high, m.digits)}]"


def make_grid(table: FilledTable) -> Grid:
    """The texts of a table."""
    footnotes, where = _footnotes(table)
    rows_notes, columns_notes, cell_notes = where
    groups = _groups(table)
    depth_rows = max((len(r.split(LEVELS)) for r in table.rows), default=1)
    depth_columns = max((len(labels) for labels, _ in groups), default=1)
    columns = tuple(Column(_padded(labels, depth_columns), _common(columns_notes, members)) for labels, members in groups)
    rows = []
    for row in table.rows:
        cells = tuple(_joined([table.cell(row, m) for m in members], cell_notes, table.tier == "paper") for _, members in groups)
        rows.append(GridRow(_padded(row.split(LEVELS), depth_rows), rows_notes.get(row, ()), cells))
    return Grid(f"{table.spec.id}: {table.spec.title}", columns, tuple(rows), footnotes, tuple(_facts(table)))


def header_spans(grid: Grid) -> list[list[tuple[str, int, tuple[int, ...]]]]:
    """The header by level: text, how many columns it spans, footnotes. Equal neighbours are one, but on the last level."""
    levels = len(grid.columns[0].labels) if grid.columns else 0
    lines: list[list[tuple[str, int, tuple[int, ...]]]] = []
    for level in range(levels):
        last = level == levels - 1
        line = []
        for _, group in groupby(enumerate(grid.columns), key=lambda ic: ic[0] if last else ic[1].labels[: level + 1]):
            members = [c for _, c in group]
            line.append((members[0].labels[level], len(members), members[0].notes if last else ()))
        lines.append(line)
    return lines


def _padded(labels: Sequence[str], depth: int) -> tuple[str, ...]:
    return (*labels, *[""] * (depth - len(labels)))


def _groups(table: FilledTable) -> list[tuple[list[str], list[str]]]:
    """Printed columns: header levels, and the columns that are joined in one."""
    if not table.spec.joined:
        return [(c.split(LEVELS), [c]) for c in table.columns]
    found: dict[str, list[str]] = {}
    for column in table.columns:
        found.setdefault(column.rpartition(LEVELS)[0] or column, []).append(column)
    # a column of one level (a change of weights beside ACC / LPIPS) has no last level to name
    return [([*head.split(LEVELS), " / ".join(m.rpartition(LEVELS)[2] for m in members if LEVELS in m)], members) for head, members in found.items()]


def _common(notes: dict[str, tuple[int, ...]], members: Sequence[str]) -> tuple[int, ...]:
    return tuple(sorted({n for m in members for n in notes.get(m, ())}))


def _joined(cells: Sequence[TableCell | None], notes: dict[tuple[str, str], tuple[int, ...]], mark: bool) -> Text:
    """Several cells as one, their values with slashes between them."""
    there = [c for c in cells if c is not None]
    if not there:
        return Text()
    texts = [measured_text(c) for c in there]
    published = " / ".join(("" if c.published is None else c.published.printed) + (OUTSIDE if mark and c.outside else "") for c in there)
    measured = " / ".join(t[0] for t in texts) if any(t[0] for t in texts) else ""
    interval = " / ".join(t[1] or "–" for t in texts) if any(t[1] for t in texts) else ""
    return Text(published, measured, interval, tuple(sorted({n for c in there for n in notes.get((c.row, c.column), ())})))


Notes = tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], dict[tuple[str, str], tuple[int, ...]]]


def _footnotes(table: FilledTable) -> tuple[tuple[str, ...], Notes]:
    """The footnotes, and their numbers by row, column and cell: a note of all cells of a row or column is set on its label."""
    printed = [c for c in table.cells if c.published is not None]
    texts = tuple(dict.fromkeys(n for c in printed if c.published for n in c.published.notes))
    rows: dict[str, tuple[int, ...]] = {}
    columns: dict[str, tuple[int, ...]] = {}
    cells: dict[tuple[str, str], tuple[int, ...]] = {}
    for i, note in enumerate(texts, start=1):
        having = {(c.row, c.column) for c in printed if c.published and note in c.published.notes}
        whole_rows = _whole(having, [(c.row, c.column) for c in printed], 0)
        whole_columns = _whole(having, [(c.row, c.column) for c in printed], 1)
        covered = {k for k in having if k[0] in whole_rows or k[1] in whole_columns}
        for labels, target in ((whole_rows, rows), (whole_columns, columns)):
            for label in labels:
                target[label] = (*target.get(label, ()), i)
        for key in having - covered:
            cells[key] = (*cells.get(key, ()), i)
    return texts, (rows, columns, cells)


def _whole(having: set[tuple[str, str]], every: Iterable[tuple[str, str]], side: int) -> set[str]:
    """Rows (0) or columns (1) of at least two cells that all have the note."""
    found: dict[str, set[tuple[str, str]]] = {}
    for key in every:
        found.setdefault(key[side], set()).add(key)
    return {label for label, keys in found.items() if len(keys) > 1 and keys <= having}


def _facts(table: FilledTable) -> list[str]:
    spec, rows = table.spec, table.measured
    lines = [f"First line: published ({spec.source})." if spec.published else f"After {spec.source}, which prints no numbers."]
    if not rows:
        return [*lines, f"Nothing is measured yet: `conceptbench table run {spec.id} --tier {table.tier}`."]
    missing = sum(c.defined is None and (c.measured is None or c.measured.value is None) for c in table.cells)
    intervals = ", with 95 % intervals" if any(c.measured is not None and c.measured.low is not None for c in table.cells) else ""
    lines.append(f"{'Second line: m' if spec.published else 'M'}easured on the {table.tier} tier{intervals}; {_measured_with(rows)}.")
    if missing:
        lines.append(f"{missing} of {len(table.cells)} cells are not measured.")
    if any(c.defined for c in table.cells):
        lines.append(f"{DEFINED}: not measured but so by definition, the unmodified model beside itself.")
    if table.tier == "mini":
        lines.append(f"Mapping: {spec.tiers['mini'].mapping.strip()}")
    else:
        known = [c for c in table.cells if c.outside is not None]
        lines.append(f"{OUTSIDE}: the published number is outside of the measured interval, {sum(bool(c.outside) for c in known)} of {len(known)} with one.")
    if spec.published:
        lines += [_agreement(agreement_of(table)), *_agreement_parts(table)]
    return lines


def _agreement_parts(table: FilledTable) -> list[str]:
    """The same by column, or by row where methods are columns; nothing if there is only one."""
    parts = [(label, a) for label, a in agreement_parts(table).items() if a.tau is not None]
    shown = "; ".join(f"{label.replace(LEVELS, ' ')} {a.tau:.2f} [{a.low:.2f}, {a.high:.2f}]" for label, a in parts)
    return [f"One by one: {shown}."] if len(parts) > 1 else []


def _agreement(a: Agreement) -> str:
    if a.tau is None:
        return "Order of the methods: no two of them that both sides tell apart."
    basis = f"{a.lines} line(s) with up to {a.methods} methods, {a.pairs} pairs"
    tau = f"Kendall's tau-b {a.tau:.2f} [{a.low:.2f}, {a.high:.2f}]"
    return f"Order of the methods, without the base: {tau} over {basis}; the interval is of the measured values alone."


def _measured_with(rows: Sequence[ResultRow]) -> str:
    def distinct(values: Iterable[object]) -> str:
        every = list(dict.fromkeys(str(v) for v in values))
        return ", ".join(every if len(every) <= NAMED else [*every[:FIRST], f"and {len(every) - FIRST} more, which the CSV names"])

    counts = sorted({r.n_scored for r in rows if r.n_scored})
    n = "" if not counts else f"; n {counts[0]}" if len(counts) == 1 else f"; n {counts[0]} to {counts[-1]}"
    seeds = distinct(r.train_seed for r in rows if r.train_seed is not None)
    return (
        f"suite {distinct(f'{r.suite} {r.suite_version}' for r in rows)} on {distinct(r.base for r in rows)}; status {distinct(r.status for r in rows)}{n}"
        f"{f'; training seed {seeds}' if seeds else ''}; protocols {distinct(r.protocol for r in rows)}"
    )
