"""The rows of a prompt set as a CSV file, and all that is wrong with it."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from conceptbench.core.documents import Problem, messages, unknown
from conceptbench.core.schemas import Prompt, PromptRow


@dataclass(frozen=True)
class PromptFile:
    """A prompt set: the valid rows and the line that each begins in."""

    path: Path
    rows: tuple[Prompt, ...]
    lines: tuple[int, ...]
    problems: tuple[Problem, ...]


class Columns(ABC):
    """What the columns of a file mean."""

    @abstractmethod
    def problems(self, path: Path, header: Sequence[str]) -> list[str]:
        """What is wrong with the header, in words."""

    @abstractmethod
    def usable(self, header: Sequence[str]) -> bool:
        """Whether rows can be read all the same; otherwise every row would repeat what is wrong."""

    @abstractmethod
    def values(self, header: Sequence[str], cells: Sequence[str], number: int) -> dict[str, str]:
        """The cells of a row by the fields of :class:`PromptRow`, without empty ones; rows are numbered from 0."""


class OwnColumns(Columns):
    """Columns that are the fields of :class:`PromptRow`."""

    def problems(self, path: Path, header: Sequence[str]) -> list[str]:
        """Unknown, repeated and missing columns."""
        columns = PromptRow.model_fields
        wrong = [unknown(path, 1, "column", c, columns).message for c in dict.fromkeys(header) if c not in columns]
        wrong += repeated(header)
        wrong += [f"the column {c!r} is missing" for c, f in columns.items() if f.is_required() and c not in header]
        return wrong if {"text", "label"} & set(header) else [*wrong, "the column 'text' is missing (or 'label', for class-conditional bases)"]

    def usable(self, header: Sequence[str]) -> bool:
        """Whether what is required is there, once."""
        return {c for c, f in PromptRow.model_fields.items() if f.is_required()} <= set(header) and len(set(header)) == len(header)

    def values(self, header: Sequence[str], cells: Sequence[str], number: int) -> dict[str, str]:  # noqa: ARG002 - rows have their own ids
        """The cells."""
        return {k: v for k, v in zip(header, cells, strict=True) if v.strip() and k in PromptRow.model_fields}


def repeated(header: Sequence[str]) -> list[str]:
    """What is wrong with a header that has a column twice."""
    return [f"the column {c!r} is there twice" for c in sorted({c for c in header if header.count(c) > 1})]


def _row_of(columns: Columns, header: Sequence[str], cells: Sequence[str], number: int) -> tuple[Prompt | None, list[str]]:
    if len(cells) != len(header):
        quoting = "; a text with a comma in it needs quotes" if len(cells) > len(header) else "; empty ones need their commas"
        return None, [f"{len(cells)} cells where the header has {len(header)}" + quoting]
    values = columns.values(header, cells, number)
    try:
        return PromptRow.model_validate(values).prompt(), []
    except ValidationError as error:
        found = messages(PromptRow, error)
        return None, [f"{place[0]} is empty" if place and place[0] not in values else text.removeprefix("PromptRow: ") for place, text in found]


OWN = OwnColumns()


def read_prompts(path: Path, columns: Columns = OWN) -> PromptFile:
    """The rows of a prompt set and all that is wrong with it.

    Args:
        path: a CSV file.
        columns: what its columns mean; by default they are the fields of :class:`PromptRow`.
    """
    header: list[str] = []
    rows, lines, problems = list[Prompt](), list[int](), list[Problem]()
    first: dict[str, int] = {}
    line, number = 1, 0
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        for cells in reader:
            begins, line = line, reader.line_num + 1  # a quoted text may go over several lines
            if not header:
                header = cells
                problems += [Problem(path, begins, m) for m in columns.problems(path, header)]
                if not columns.usable(header):
                    break
            elif cells:
                row, wrong = _row_of(columns, header, cells, number)
                number += 1
                problems += [Problem(path, begins, m) for m in wrong]
                if row is None:
                    continue
                if first.setdefault(row.prompt_id, begins) != begins:
                    problems.append(Problem(path, begins, f"prompt_id {row.prompt_id!r} occurs twice: in line {first[row.prompt_id]} and here"))
                rows.append(row)
                lines.append(begins)
    except csv.Error as error:
        problems.append(Problem(path, line, f"not valid CSV: {error}; the row begins here"))
    except (OSError, ValueError) as error:
        problems.append(Problem(path, None, f"not readable as CSV: {error}"))
    if not header and not problems:
        problems.append(Problem(path, None, f"the file is empty; its columns are {', '.join(PromptRow.model_fields)}"))
    return PromptFile(path, tuple(rows), tuple(lines), tuple(problems))
