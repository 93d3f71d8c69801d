"""Leaderboard CSVs as data: their rows with the lines that they stand in, and all that is wrong with them by themselves.

What identifies a number is :data:`KEY`: two rows with the same key are about the same number. What the number is are the fields of
:data:`NUMBER`; hardware, versions and times of its making are neither.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from conceptbench.core.documents import Problem
from conceptbench.core.errors import UserInputError
from conceptbench.core.files import read_packed
from conceptbench.core.metric import Better
from conceptbench.core.results import ResultRow, read_rows

KEY = ("suite", "suite_version", "task", "role", "concept", "base_sha256", "eraser", "preset", "protocol", "train_seed", "erasure_sha256")
COUNTS = ("n_planned", "n_scored", "n_failed", "clusters")
INTERVALS = (("ci_low", "ci_high"), ("delta_low", "delta_high"))
NUMBER = (
    *("value", "ci_low", "ci_high", "ci_kind", *COUNTS, "base_value", "delta", "delta_low", "delta_high", "spread", "spread_kind"),
    *("better", "unit", "status", "judge_sha256", "reference_sha256"),
)
STATUSES = ("ok", "limited", "development", "partial", "failed")
REFUSED = {
    "limited": "fewer prompts than the suite has",
    "development": "tuning prompts: numbers for tuning only",
    "partial": "not everything that was planned is scored",
    "failed": "the erasure was not made",
}
"""Status -> why such a row is not published."""
NEITHER = "neither"
_HASH = re.compile(r"[0-9a-f]{64}")
_OUTSIDE = re.compile(r"\b(\d+) of \d+ images do not count")
Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """A row and where it stands."""

    path: Path
    line: int
    row: ResultRow

    def problem(self, message: str) -> Problem:
        """Something that is wrong with it."""
        return Problem(self.path, self.line, message)

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.path}:{self.line}"


@dataclass
class Board:
    """The rows of a leaderboard CSV that can be read, and what is wrong with the others."""

    path: Path
    rows: list[Placed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def key_of_row(row: ResultRow) -> Key:
    """What identifies the row's number."""
    return tuple(getattr(row, name) for name in KEY)


def told(row: ResultRow) -> str:
    """The row's number in words: ``esr-1@... of target * by uce:mini [object]``."""
    model = f"{row.eraser}:{row.preset}" if row.preset else row.eraser
    return f"{row.protocol} of {row.role} {row.concept} by {model} [{row.task}]"


def read_board(path: Path) -> Board:
    """Reads a leaderboard CSV, packed (``.csv.gz``) or not; whatever is wrong with it is in :attr:`Board.problems`."""
    board = Board(path)
    try:
        for line, row in read_rows(read_packed(path), path.name, as_written=True):
            if isinstance(row, str):
                board.problems.append(Problem(path, line, row))
            else:
                board.rows.append(Placed(path, line, row))
    except UserInputError as error:
        board.problems.append(Problem(path, 1, f"{error.message}; {error.hint}"))
    except (OSError, ValueError) as error:  # not there, a torn archive, not UTF-8
        board.problems.append(Problem(path, None, f"not readable as a leaderboard CSV: {error}"))
    if not board.rows and not board.problems:
        board.problems.append(Problem(path, None, "it has no rows"))
    return board


def board_problems(board: Board, allowed: Collection[str] = ()) -> list[Problem]:
    """All that is wrong with a board by itself: rows that are not of the schema, incomplete, not for publication, or there twice.

    Args:
        board: as it was read.
        allowed: statuses besides ``ok`` that pass.
    """
    found = list(board.problems)
    for placed in board.rows:
        found += [placed.problem(text) for text in row_problems(placed.row, allowed)]
    return found + repeated(board.rows)


def repeated(rows: Sequence[Placed]) -> list[Problem]:
    """Rows about a number that an earlier row is about already."""
    first: dict[Key, Placed] = {}
    found = []
    for placed in rows:
        earlier = first.setdefault(key_of_row(placed.row), placed)
        if earlier is not placed:
            found.append(placed.problem(f"{told(placed.row)} is there already, in line {earlier.line}; a number stands in one row"))
    return found


def row_problems(row: ResultRow, allowed: Collection[str] = ()) -> Iterator[str]:
    """What is wrong with a row by itself."""
    yield from _status_problems(row, allowed)
    yield from _count_problems(row)
    yield from _value_problems(row)
    for name in ("suite_sha256", "base_sha256"):
        if not getattr(row, name):
            yield f"{name} is empty, and every number comes from a suite and a base with a hash"
    for name in ("suite_sha256", "base_sha256", "erasure_sha256", "judge_sha256", "reference_sha256", "plugin_sha256"):
        text = getattr(row, name)
        if text and not _HASH.fullmatch(text):
            yield f"{name} is {text!r}, and a sha256 has 64 hexadecimal digits"
    if row.better and row.better not in get_args(Better):
        yield f"better is {row.better!r}, and not one of {', '.join(get_args(Better))}"
    if row.protocol.partition("@")[0] != row.metric:
        yield f"protocol {row.protocol!r} does not begin with its metric, {row.metric!r}, and @"


def _status_problems(row: ResultRow, allowed: Collection[str]) -> Iterator[str]:
    if row.status not in STATUSES:
        yield f"status is {row.status!r}, and not one of {', '.join(STATUSES)}"
    elif row.status != "ok" and row.status not in allowed:
        yield f"status is {row.status}: {REFUSED[row.status]}; what is published has status ok (--allow {row.status} lets it pass)"
    elif row.status == "failed" and row.value is not None:
        yield f"status is failed, and value is {row.value:g}: an erasure that was not made has none"


def _count_problems(row: ResultRow) -> Iterator[str]:
    negative = [f"{name} is {getattr(row, name)}" for name in COUNTS if getattr(row, name) < 0]
    if negative:
        yield f"{', '.join(negative)}: a count is not negative"
    if row.status != "ok" or (row.value is None and row.reason):  # another line says that it is incomplete, or the row says why
        return
    said = _OUTSIDE.search(row.reason)
    outside = int(said[1]) if said else 0
    if row.n_scored + row.n_failed + outside != row.n_planned:
        beside = f" and {outside} that do not count" if outside else ""
        yield f"n_scored + n_failed is {row.n_scored} + {row.n_failed}{beside}, and n_planned is {row.n_planned}: the row is not complete"


def _value_problems(row: ResultRow) -> Iterator[str]:
    if row.value is None and not row.reason:
        yield "value is empty, and reason does not say why"
    if row.value is not None and not row.ci_kind:
        yield "ci_kind is empty: it names the interval's method, or says why there is no interval"
    if row.value is not None and row.unit in ("rate", "probability") and not 0 <= row.value <= 1:
        yield f"value is {row.value:g}, and a {row.unit} is from 0 to 1"
    for low_name, high_name in INTERVALS:
        low, high = getattr(row, low_name), getattr(row, high_name)
        if (low is None) != (high is None):
            yield f"{low_name} is {low} and {high_name} is {high}: an interval has two ends"
        elif low is not None and low > high:
            yield f"{low_name} is {low:g}, above {high_name}, {high:g}"
