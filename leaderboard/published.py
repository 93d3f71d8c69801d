"""The figures that the four papers print, with the protocol and the known faults of each.

One CSV a paper lies in ``published/``, one line a printed number. A label is the paper's, in plain text; its levels are joined
by :data:`LEVELS`. A cell that holds two values (``ACC / LPIPS``) is two lines, told apart by the last level of the column.
Figures that stand in running text only are the table ``kpop/text`` and so on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from conceptbench.core.documents import Problem, messages, refuse, unknown
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.strict import Strict
from conceptbench.engine.foreign_tables import read_table, refuse_some

LEVELS = " | "
"""Between the levels of a label, and between the notes of a cell."""
HINT = "published figures are a part of the package: install it again, or mend the line (its columns are described in leaderboard/published.py)"

Unit = Literal["%", "rate", "probability", "cosine", "cosine x 100", "count", "distance", "nats", "l1", "sum", "seconds", "hours", "steps", "GB"]
"""``%`` is 100 times a rate; ``cosine x 100`` is a CLIP score; ``l1`` is a change of weights; ``sum`` is SepME's, of rates or of distances."""
Printed = Annotated[str, StringConstraints(pattern=r"^-?\d+(\.\d*)?$")]
Spread = Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d*)?)?$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Line(Strict):
    """A line of a CSV of published figures; the fields are its columns.

    Attributes:
        table: paper and number, ``kpop/2``, or ``kpop/text``.
        row, column: labels.
        value: as printed: ``98.84``, ``0.0``, ``1.``.
        spread: what stands behind ± or in brackets, as printed; empty if nothing does. ``protocol`` says what it is.
        unit: of value and spread.
        protocol: how the number was got, as far as is known.
        note: what is wrong with it; several are joined by :data:`LEVELS`. ``must be X: ...`` where the right value is known.
    """

    table: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/([1-9]\d*|text)$")]
    row: Text
    column: Text
    value: Printed
    spread: Spread = Field(default="")
    unit: Unit
    protocol: Text
    note: str = ""

    @model_validator(mode="after")
    def _clean(self) -> Line:
        for name in ("row", "column", "protocol", "note"):
            text = getattr(self, name)
            if any(level != level.strip() or not level for level in text.split(LEVELS) if text):
                raise ValueError(f"{name} is {text!r}: a level is empty or has spaces around it")
        return self


@dataclass(frozen=True)
class Cell:
    """A printed number.

    Attributes:
        row, column: labels.
        text, value: as printed, and as a number.
        spread_text, spread: what stands behind ± or in brackets; empty and None if nothing does.
        unit: of both.
        protocol: how it was got.
        notes: what is wrong with it.
    """

    row: str
    column: str
    text: str
    value: float
    spread_text: str
    spread: float | None
    unit: str
    protocol: str
    notes: tuple[str, ...] = ()

    @property
    def printed(self) -> str:
        """Value and spread: ``22.0 ± 11.6``."""
        return f"{self.text} ± {self.spread_text}" if self.spread_text else self.text

    @property
    def must_be(self) -> str | None:
        """The right value as a note says it (``0.276``; ``99.64 or 99.68``); None where it is not known, or nothing is wrong."""
        found = (re.match(r"must be ([^:]+):", note) for note in self.notes)
        return next((match[1] for match in found if match), None)


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper: its cells in printed order, from left to right and from top to bottom. A cell that prints no number is not there."""

    id: str
    cells: tuple[Cell, ...]

    @functools.cached_property
    def rows(self) -> tuple[str, ...]:
        """Labels of the rows, in order."""
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """Labels of the columns, in an order that every row has."""
        order: list[str] = []
        for row in self.rows:  # the first row may print no number in the first column
            place = len(order)
            for column in reversed([cell.column for cell in self.cells if cell.row == row]):
                if column in order:
                    place = order.index(column)
                else:
                    order.insert(place, column)
        return tuple(order)

    @functools.cached_property
    def units(self) -> tuple[str, ...]:
        """Units, in order of first appearance."""
        return tuple(dict.fromkeys(cell.unit for cell in self.cells))

    @functools.cached_property
    def footnotes(self) -> tuple[str, ...]:
        """What is wrong with cells, each once, in order of first appearance."""
        return tuple(dict.fromkeys(note for cell in self.cells for note in cell.notes))

    @functools.cached_property
    def _at(self) -> Mapping[tuple[str, str], Cell]:
        return {(cell.row, cell.column): cell for cell in self.cells}

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell with these labels; None if the table prints no number there."""
        return self._at.get((row, column))

    def marks(self, cell: Cell) -> tuple[int, ...]:
        """The numbers of a cell's footnotes; the first of :attr:`footnotes` is 1."""
        return tuple(sorted(self.footnotes.index(note) + 1 for note in cell.notes))


def published_tables() -> list[str]:
    """Ids of all tables, paper by paper in printed order, text last."""
    return list(_all())


def load_published(table: str) -> PublishedTable:
    """A table by id: ``kpop/2``, ``sepme/text``.

    Raises:
        UserInputError: there is none (with the nearest one), or a CSV is damaged (with file and line).
    """
    tables = _all()
    if table not in tables:
        raise unknown_name("published table", table, tables)
    return tables[table]


def read_published(path: Path) -> list[PublishedTable]:
    """The tables of one CSV.

    Args:
        path: named after the paper, as the ids in it are.

    Raises:
        UserInputError: it is not of the form that :class:`Line` describes; all that is wrong is named with its line.
    """
    try:
        found = read_table(path)
    except UserInputError as error:
        raise UserInputError(error.message, HINT) from error
    refuse(_header_problems(path, found.columns), HINT)
    problems: list[Problem] = []
    seen: dict[tuple[str, str, str], int] = {}
    cells: dict[str, list[Cell]] = {}
    for number, values in found.rows:
        try:
            line = Line.model_validate(dict(values))
        except ValidationError as error:
            problems += [Problem(path, number, text) for _, text in messages(Line, error)]
            continue
        if line.table.partition("/")[0] != path.stem:
            problems.append(Problem(path, number, f"table is {line.table!r}, and this file is of {path.stem!r}"))
        first = seen.setdefault((line.table, line.row, line.column), number)
        if first != number:
            problems.append(Problem(path, number, f"{line.table} has the cell {line.row!r}, {line.column!r} already, in line {first}"))
        cells.setdefault(line.table, []).append(_cell(line))
    refuse_some(problems, HINT)
    return [PublishedTable(table, tuple(own)) for table, own in cells.items()]


def _header_problems(path: Path, columns: Sequence[str]) -> list[Problem]:
    fields = list(Line.model_fields)
    wrong = [unknown(path, 1, "column", c, fields) for c in columns if c not in fields]
    return wrong + [Problem(path, 1, f"the column {c!r} is missing") for c in fields if c not in columns]


def _cell(line: Line) -> Cell:
    return Cell(
        row=line.row,
        column=line.column,
        text=line.value,
        value=float(line.value),
        spread_text=line.spread,
        spread=float(line.spread) if line.spread else None,
        unit=line.unit,
        protocol=line.protocol,
        notes=tuple(line.note.split(LEVELS)) if line.note else (),
    )


@functools.cache
def _all() -> Mapping[str, PublishedTable]:
    folder = Path(str(files("conceptbench.leaderboard"))) / "published"
    return {table.id: table for path in sorted(folder.glob("*.csv")) for table in read_published(path)}
