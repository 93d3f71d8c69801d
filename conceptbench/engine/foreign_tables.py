"""Tables that other tools wrote, as texts: CSV, TSV and JSONL files with the line in which each row begins."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conceptbench.core.documents import Problem, refuse
from conceptbench.core.errors import UserInputError

SHOWN = 5  # problems of one kind that an error lists


@dataclass(frozen=True)
class Table:
    """A file's rows: the line in which each begins, and its cells by column, all of them texts."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]


def read_table(path: Path, encoding: str = "utf-8") -> Table:
    """A CSV (comma, or semicolon if the header has no comma), TSV or JSONL file as texts.

    Raises:
        UserInputError: the file is not there, not in this encoding or not of this form; every faulty row is named.
    """
    text = _decoded(path, encoding)
    problems: list[Problem] = []
    table = (_json_lines if path.suffix.lower() in (".jsonl", ".ndjson") else _delimited)(path, text, problems)
    if not problems and not table.rows:
        problems.append(Problem(path, None, "the file has no rows"))
    refuse_some(problems, "one row an image: a CSV or TSV with a header, or JSONL (.jsonl)")
    return table


def _decoded(path: Path, encoding: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserInputError(f"cannot read the records {path}: {error.strerror}", "give a CSV, TSV or JSONL file") from error
    if encoding.lower() in ("utf-8", "utf8"):
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise UserInputError(f"unknown encoding {encoding!r}", "e.g. --encoding latin-1, cp1252 or gb18030") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserInputError(f"{path}:{line}: byte 0x{data[error.start]:02x} is not {encoding}", "say what it is, e.g. --encoding latin-1 or cp1252") from error


def _delimiter(path: Path, text: str) -> str:
    header = text.partition("\n")[0]
    return "\t" if path.suffix.lower() == ".tsv" else next((d for d in (",", ";", "\t") if d in header), ",")


def _delimited(path: Path, text: str, problems: list[Problem]) -> Table:
    header: list[str] | None = None
    rows: list[tuple[int, Mapping[str, str]]] = []
    line = 1
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if header is None:
                header = cells
            elif cells and len(cells) != len(header):
                problems.append(Problem(path, begins, f"{len(cells)} cells where the header has {len(header)}"))
            elif cells:
                rows.append((begins, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        problems.append(Problem(path, line, f"not valid CSV: {error}; the row begins here"))
    twice = sorted({c for c in header or () if c and (header or []).count(c) > 1})
    problems += [Problem(path, 1, f"the column {c!r} is there twice") for c in twice]
    return Table(path, tuple(header or ()), tuple(rows))


def _json_lines(path: Path, text: str, problems: list[Problem]) -> Table:
    rows: list[tuple[int, Mapping[str, str]]] = []
    columns: dict[str, None] = {}
    for line, own in enumerate(text.split("\n"), start=1):
        if not own.strip():
            continue
        try:
            value = json.loads(own)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(path, line, f"not valid JSON: {error}"))
            continue
        if not isinstance(value, dict):
            problems.append(Problem(path, line, "not a mapping of columns to values"))
            continue
        columns.update(dict.fromkeys(value))
        rows.append((line, {k: _cell(v) for k, v in value.items()}))
    return Table(path, tuple(columns), tuple((line, {c: row.get(c, "") for c in columns}) for line, row in rows))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else str(int(value)) if isinstance(value, bool) else json.dumps(value)


def refuse_some(problems: Sequence[Problem], hint: str) -> None:
    """Raises at most :data:`SHOWN` problems, with their number."""
    if len(problems) > SHOWN:
        listed = "\n  ".join(map(str, problems[:SHOWN]))
        raise UserInputError(f"{len(problems)} problems in {problems[0].path.name}, the first {SHOWN}:\n  {listed}", hint)
    refuse(problems, hint)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or says that there is no value."""
    return cell.strip().casefold() in ("", "nan", "none", "null", "n/a", "na")


def number_of(cell: str) -> float | None:
    """A cell as a finite number; None if it is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
