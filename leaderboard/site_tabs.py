"""A tab of the page: its lines (models) and columns (metrics), so that what must not be compared never shares a column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from conceptbench.core.registry import ERASERS
from conceptbench.core.results import BASE, CHECKPOINT, FLOOR, ResultRow, RowRole

Key = tuple[Any, ...]
Item = TypeVar("Item")
ROLES: tuple[str, ...] = get_args(RowRole)
"""In the order in which columns are shown."""


@dataclass(frozen=True)
class Shown:
    """A row that is shown.

    Attributes:
        line: key of its line.
        mode: ``limited`` or ``development`` where its run was, else empty.
        file: the name of its file where another one gives other values, else empty.
    """

    row: ResultRow
    line: Key
    mode: str
    file: str


@dataclass(frozen=True)
class Line:
    """One model of a tab.

    Attributes:
        kind: the method that a variant belongs to (``esd`` for ``esd-x``), ``base``, or ``checkpoint``.
        tags: what tells it from other lines of the same eraser and preset; empty where nothing must.
    """

    eraser: str
    preset: str
    base: str
    kind: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """One metric of one role under one protocol, asked of one judge.

    Attributes:
        id: unique in its tab.
        detail: what tells it from other columns of the same metric and role; else empty.
    """

    id: str
    role: str
    metric: str
    protocol: str
    unit: str
    better: str
    detail: str


@dataclass(frozen=True)
class Tab:
    """A suite and its major version; its rows follow each other in the board.

    Attributes:
        start, count: its rows.
        lines: in the order in which rows mention them.
        columns: by role, else in that order, too.
        line_of, column_of: of each of its rows.
        tasks: in the order of the rows; ``*`` is the row over the splits of an experiment.
    """

    suite: str
    major: str
    versions: tuple[str, ...]
    start: int
    count: int
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    line_of: tuple[int, ...]
    column_of: tuple[int, ...]
    tasks: tuple[str, ...]


def unique(items: Iterable[Item]) -> tuple[Item, ...]:
    """Each item once, in the order of the first."""
    return tuple(dict.fromkeys(items))


def tab_of(suite: str, major: str, start: int, shown: Sequence[Shown]) -> Tab:
    """The tab of some rows.

    Args:
        suite: of all of them.
        major: their major version.
        start: the number of the first of them in the board.
        shown: at least one.
    """
    rows = [s.row for s in shown]
    first: dict[Key, Shown] = {}
    for s in shown:
        first.setdefault(s.line, s)
    clashing = _clashing_references(rows)
    keys = sorted(unique(_key(r, clashing) for r in rows), key=lambda k: ROLES.index(k[0]))
    places, columns = ({key: i for i, key in enumerate(found)} for found in (first, keys))
    return Tab(
        suite=suite,
        major=major,
        versions=tuple(sorted(unique(r.suite_version for r in rows))),
        start=start,
        count=len(rows),
        lines=_lines(list(first.values())),
        columns=tuple(_column(key, keys) for key in keys),
        line_of=tuple(places[s.line] for s in shown),
        column_of=tuple(columns[_key(r, clashing)] for r in rows),
        tasks=unique(r.task for r in rows),
    )


# -- lines -----------------------------------------------------------------------------------------------------------------
def kind_of(row: ResultRow, names: Sequence[str]) -> str:
    """Which method a variant belongs to: ``esd`` for ``esd-x``; one that is not registered is a kind of its own.

    Args:
        row: of the model.
        names: of the registered erasers, the longest first.
    """
    if row.eraser == BASE or row.eraser.startswith(FLOOR):
        return BASE
    if row.preset == CHECKPOINT:
        return CHECKPOINT
    return next((n for n in names if row.eraser == n or row.eraser.startswith(f"{n}-")), row.eraser)


def short(digest: str) -> str:
    """As much of a hash as tells two of them apart."""
    return digest[:8]


TAGS: tuple[tuple[Callable[[Shown], Any], Callable[[Any], str]], ...] = (
    (lambda s: s.row.base, lambda v: f"on {v}"),
    (lambda s: s.row.base_sha256, lambda v: f"base {short(v)}"),
    (lambda s: s.row.suite_version, lambda v: f"version {v}"),
    (lambda s: s.mode, lambda v: v or "full run"),
    (lambda s: s.row.train_seed, lambda v: f"seed {v}"),
    (lambda s: s.row.plugin_sha256, lambda v: f"code {short(v)}"),
)
"""What may tell two lines of one eraser and preset apart, and how it is written."""


def _lines(first: Sequence[Shown]) -> tuple[Line, ...]:
    names = sorted(ERASERS.names(), key=len, reverse=True)
    several_bases = len({s.row.base for s in first}) > 1
    alike: dict[Key, list[Shown]] = {}
    for s in first:
        alike.setdefault((s.row.eraser, s.row.preset), []).append(s)
    tags = {s.line: told for group in alike.values() for s, told in _told(group, several_bases)}
    return tuple(Line(s.row.eraser, s.row.preset, s.row.base, kind_of(s.row, names), tags[s.line]) for s in first)


def _told(group: Sequence[Shown], with_base: bool) -> Iterator[tuple[Shown, tuple[str, ...]]]:
    """For each line of one eraser and preset what tells it from the others: no more of it than is needed, and on request the base."""
    told: dict[Key, tuple[str, ...]] = {s.line: () for s in group}
    for n, (value, text) in enumerate(TAGS):
        twins: dict[tuple[str, ...], list[Shown]] = {}
        for s in group:
            twins.setdefault(told[s.line], []).append(s)
        for same in twins.values():
            if len({value(s) for s in same}) > 1 or (with_base and n == 0):
                told.update({s.line: (*told[s.line], text(value(s))) for s in same})
    yield from ((s, (*told[s.line], s.file) if s.file else told[s.line]) for s in group)


# -- columns -----------------------------------------------------------------------------------------------------------------
def _measured(row: ResultRow) -> Key:
    return row.role, row.metric, row.protocol, row.unit, row.better, row.judge_sha256


def _key(row: ResultRow, clashing: set[Key]) -> Key:
    key = _measured(row)
    return (*key, row.reference_sha256 if key in clashing else "")


def _clashing_references(rows: Sequence[ResultRow]) -> set[Key]:
    """Columns in which one task and concept is measured against several reference sets: these are not comparable."""
    found: dict[Key, set[str]] = {}
    for row in rows:
        found.setdefault((_measured(row), row.task, row.concept), set()).add(row.reference_sha256)
    return {key[0] for key, references in found.items() if len(references) > 1}


def _column(key: Key, keys: Sequence[Key]) -> Column:
    role, metric, protocol, unit, better, judge, reference = key
    alike = [k for k in keys if k[:2] == (role, metric)]
    told = (protocol.partition("@")[2] or protocol, unit, f"{better or 'neither'} is better", f"judge {short(judge)}", f"reference {short(reference)}")
    detail = ", ".join(text for text, *values in zip(told, *(k[2:] for k in alike), strict=True) if len(set(values)) > 1)
    number = [k for k in keys if (k[0], k[2]) == (role, protocol)].index(key)
    return Column(f"{role}/{protocol}" + (f"/{number + 1}" if number else ""), role, metric, protocol, unit, better, detail)


def headline_column(tab: Tab, role: str, metric: str) -> int | None:
    """The number of the first column of a metric and role; None if there is none."""
    return next((i for i, c in enumerate(tab.columns) if (c.role, c.metric) == (role, metric)), None)
