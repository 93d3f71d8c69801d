"""``conceptbench leaderboard merge``: boards that only grow. A number is added once; another value for it is a conflict."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conceptbench.core.documents import Problem
from conceptbench.core.errors import UserInputError
from conceptbench.core.files import locked, write_bytes
from conceptbench.core.results import COLUMNS, TIMED_UNITS, ResultRow, safe_cell, to_csv
from conceptbench.leaderboard.board import NUMBER, Board, Key, Placed, board_problems, key_of_row, read_board, told
from conceptbench.leaderboard.manifest import NAME, ROWS, file_problems, read_manifest


def differences(first: ResultRow, second: ResultRow) -> list[str]:
    """In what two rows about the same number differ, in words; what a rerun measures anew may."""
    if first.unit in TIMED_UNITS:
        return []
    pairs = [(name, safe_cell(getattr(first, name)), safe_cell(getattr(second, name))) for name in NUMBER]
    return [f"{name} {b or 'empty'} against {a or 'empty'}" for name, a, b in pairs if a != b]


@dataclass
class Union:
    """Rows of several boards, each number once.

    Attributes:
        rows: in the order in which they were added.
        repeated: how many were there already and agree.
        conflicts: those that do not.
    """

    rows: list[Placed] = field(default_factory=list)
    repeated: int = 0
    conflicts: list[Problem] = field(default_factory=list)
    _by_key: dict[Key, Placed] = field(default_factory=dict)

    def add(self, rows: Iterable[Placed]) -> list[Placed]:
        """Adds rows; gives those that are new."""
        new = []
        for placed in rows:
            known = self._by_key.setdefault(key_of_row(placed.row), placed)
            if known is placed:
                new.append(placed)
            elif other := differences(known.row, placed.row):
                self.conflicts.append(placed.problem(f"{told(placed.row)}: {', '.join(other)} in {known.place}"))
            else:
                self.repeated += 1
        self.rows += new
        return new


@dataclass(frozen=True)
class Merged:
    """What a merge did, or why it did nothing.

    Attributes:
        board: the file.
        added: source -> how many of its rows are new.
        repeated: rows that were there already.
        problems: if there is any, nothing was written.
    """

    board: Path
    added: dict[Path, int]
    repeated: int
    problems: list[Problem]


def merge(sources: Sequence[Path], into: Path, allowed: Collection[str] = ()) -> Merged:
    """Adds the rows of submissions and boards to a board, all or none; what the board holds already stays, byte by byte.

    Each source is checked as far as it goes without deriving its values again (:mod:`conceptbench.leaderboard.checking` does that).

    Args:
        sources: submission folders, or leaderboard CSVs (packed or not).
        into: the board, a ``.csv`` or ``.csv.gz``; it need not exist.
        allowed: statuses besides ``ok`` that pass.

    Raises:
        WriteError: the board could not be written; it is as it was.
    """
    if not into.name.endswith((".csv", ".csv.gz")):
        raise UserInputError(f"{into} is no board: its name ends with neither .csv nor .csv.gz", "name it with --into BOARD.csv")
    with locked(into.parent / f".{into.name}.lock"):
        before = into.read_bytes() if into.exists() else b""
        union = Union()
        problems = _add_board(union, into) if before else []
        old = len(union.rows)
        added = {}
        for source in dict.fromkeys(sources):
            board, wrong = read_source(source)
            problems += [*wrong, *board_problems(board, allowed)]
            added[source] = len(union.add(board.rows))
        problems += union.conflicts
        if not problems and len(union.rows) > old:
            write_bytes(into, before + _bytes([p.row for p in union.rows[old:]], into, before))
    return Merged(into, added, union.repeated, problems)


def read_source(source: Path) -> tuple[Board, list[Problem]]:
    """The rows of a submission folder or a board; of a folder also what is wrong with its files."""
    if not source.is_dir():
        return read_board(source), []
    manifest, problems = read_manifest(source)
    if manifest is None:
        return Board(source / NAME), problems
    return read_board(source / ROWS), file_problems(source, manifest)


def _add_board(union: Union, path: Path) -> list[Problem]:
    """The rows that are there; of another shape, nothing can be added to them."""
    board = read_board(path)
    union.add(board.rows)
    first = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    if not board.problems and first != ",".join(COLUMNS):
        return [Problem(path, 1, f"its columns are in another order than this version's: {', '.join(COLUMNS[:4])}, ...; merge it into a new board")]
    return board.problems


def _bytes(rows: Sequence[ResultRow], path: Path, before: bytes) -> bytes:
    """What stands behind the bytes that are there: the rows, with a header if they are the first."""
    text = to_csv(rows)
    packed = path.suffix == ".gz"
    if before:
        whole = gzip.decompress(before) if packed else before
        text = ("" if whole.endswith(b"\n") else "\n") + text.partition("\n")[2]
    return gzip.compress(text.encode(), mtime=0) if packed else text.encode()
