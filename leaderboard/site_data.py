"""Leaderboard rows as a board: what is the same row, and what is shown apart.

A *tab* is a suite and its major version; :mod:`conceptbench.leaderboard.site_tabs` makes its lines and columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import read_packed
from conceptbench.core.results import BASE, TIMED_FIELDS, TIMED_UNITS, ResultRow, from_csv
from conceptbench.leaderboard.site_tabs import Key, Shown, Tab, tab_of

LESS_THAN_ALL = ("limited", "development")
"""Statuses of runs that are not shown in one line with full ones."""


@dataclass(frozen=True)
class Source:
    """The rows of one file and what it is called on the page."""

    name: str
    rows: Sequence[ResultRow]


@dataclass(frozen=True)
class Board:
    """All tabs and their rows, tab by tab.

    Attributes:
        repeated: rows that were in the input more than once, with the same value.
        split: names of the files whose lines are shown apart, because they give other values for the same number.
    """

    tabs: tuple[Tab, ...]
    rows: tuple[ResultRow, ...]
    repeated: int
    split: tuple[str, ...]


# -- files -----------------------------------------------------------------------------------------------------------------
def read_board(path: Path) -> list[ResultRow]:
    """The rows of a ``leaderboard.csv``, packed (``.csv.gz``) or not.

    Raises:
        UserInputError: it is not there or not of this form; the line is named.
    """
    hint = "give the leaderboard.csv of a finished run, or several"
    try:
        rows = from_csv(read_packed(path), str(path))
    except OSError as error:
        raise UserInputError(f"cannot read the board {path}: {error}", hint) from error
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is no leaderboard CSV: {error}", hint) from error
    if not rows:
        raise UserInputError(f"{path} has no rows", hint)
    return rows


def sources_of(paths: Sequence[Path]) -> list[Source]:
    """The files of a board, each called by as little of its path as tells it from the others."""
    names = [p.name for p in paths]
    if len(set(names)) < len(names):
        names = [f"{p.resolve().parent.name}/{p.name}" for p in paths]
    numbered = enumerate(zip(names, paths, strict=True), start=1)
    return [Source(name if names.count(name) == 1 else f"{name} ({i})", read_board(path)) for i, (name, path) in numbered]


# -- what is the same --------------------------------------------------------------------------------------------------------
def major_of(version: str) -> str:
    """``1`` of ``1.2``."""
    return version.partition(".")[0]


@dataclass(frozen=True)
class _Entry:
    """A row of a file.

    Attributes:
        number: of its line.
        mode: ``limited`` or ``development`` where its run was; a row that failed or is incomplete does not say so itself.
    """

    row: ResultRow
    source: str
    number: int
    mode: str

    @cached_property
    def setting(self) -> Key:
        """What a method is compared within: all lines of it have the base's rows in common."""
        r = self.row
        return r.suite, major_of(r.suite_version), r.suite_version, r.base, r.base_sha256, self.mode

    @cached_property
    def model(self) -> Key:
        """The line that it belongs to, as far as the row itself tells."""
        return (*self.setting, self.row.eraser, self.row.preset, self.row.train_seed, self.row.plugin_sha256)

    @cached_property
    def cell(self) -> Key:
        """The place in its line."""
        r = self.row
        return r.role, r.metric, r.protocol, r.unit, r.better, r.judge_sha256, r.reference_sha256, r.task, r.concept

    @cached_property
    def said(self) -> Key:
        """What two rows must agree in to be one: all but time, machine, and the hash of a suite of which more or less was run."""
        if self.row.unit in TIMED_UNITS:
            return ()
        return tuple(v for k, v in self.row if k not in (*TIMED_FIELDS, "suite_sha256"))


def _entries(source: Source) -> Iterator[_Entry]:
    def run_of(row: ResultRow) -> Key:
        return row.suite, row.suite_version, row.suite_sha256, row.base_sha256

    modes = {run_of(r): r.status for r in source.rows if r.status in LESS_THAN_ALL}
    for number, row in enumerate(source.rows, start=2):
        yield _Entry(row, source.name, number, modes.get(run_of(row), ""))


def _disagreeing(entries: Iterable[_Entry]) -> set[Key]:
    """Models, or for the base whole settings, for which two files give different values for the same number.

    Raises:
        UserInputError: two rows of one file do.
    """
    first: dict[Key, _Entry] = {}
    apart: set[Key] = set()
    for entry in entries:
        before = first.setdefault((entry.model, entry.cell), entry)
        if before.said == entry.said:
            continue
        row = entry.row
        if before.source == entry.source:
            what = f"{row.metric} of {row.role} {row.concept} in task {row.task}, {row.eraser}:{row.preset}"
            lines = f"{entry.source}: lines {before.number} and {entry.number}"
            raise UserInputError(f"{lines} give different values for the same number: {what}", "`conceptbench leaderboard check` finds all of them")
        apart.add(entry.setting if row.eraser == BASE else entry.model)
    return apart


def board_of(sources: Sequence[Source]) -> Board:
    """Puts rows of one or several files together.

    Rows that agree are kept once. Where two files give other values for the same number of the same model, its lines are shown apart,
    named by their files; where they do so for the base, all lines that are compared with it are.

    Raises:
        UserInputError: two rows of one file give different values for the same number.
    """
    entries = [entry for source in sources for entry in _entries(source)]
    apart = _disagreeing(entries)
    found: dict[Key, dict[Key, Shown]] = {}
    split: dict[str, None] = {}
    for entry in entries:
        name = entry.source if apart & {entry.model, entry.setting} else ""
        if name:
            split[name] = None
        tab = found.setdefault(entry.setting[:2], {})
        tab.setdefault((entry.model, name, entry.cell), Shown(entry.row, (entry.model, name), entry.mode, name))
    tabs, rows = list[Tab](), list[ResultRow]()
    for (suite, major), cells in found.items():
        own = list(cells.values())
        tabs.append(tab_of(suite, major, len(rows), own))
        rows += [s.row for s in own]
    return Board(tuple(tabs), tuple(rows), len(entries) - len(rows), tuple(split))
