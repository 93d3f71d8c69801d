"""Reads manifests (YAML) and prompt sets (CSV) from the package's prompts folder or from files of the user's.

The ``read_...`` functions never raise for what is in a file: they give what is usable and every problem with its line.
The ``load_...`` functions give the whole or raise all problems at once.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from conceptbench.core.documents import Document, Problem, check, messages, read_document, refuse, unknown
from conceptbench.core.documents import read_yaml as read_yaml  # also known by this name
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.schemas import Concept, Prompt, PromptRow, Split, Suite, Task
from conceptbench.core.suite_checks import shadowing_judges, strays, unknown_concepts, unknown_plugins


# -- where manifests are ---------------------------------------------------------------------------------------------
def _folder(kind: str) -> Path:
    return Path(str(files("conceptbench.prompts"))) / kind


def names_in(kind: str) -> list[str]:
    """Names of the shipped manifests of a kind: ``suites``, ``concepts`` or ``sets``."""
    return sorted(p.stem for p in _folder(kind).iterdir() if p.suffix in {".yaml", ".csv"})


def find_manifest(kind: str, name: str, suffix: str) -> Path:
    """A shipped manifest by name, or the user's file by path.

    Raises:
        UserInputError: there is none (with the nearest shipped one).
    """
    if name.endswith(suffix):
        path = Path(name)
        if not path.is_file():
            raise UserInputError(f"no such file: {name}", f"shipped {kind}: {', '.join(names_in(kind))}")
        return path
    if name not in names_in(kind):
        raise unknown_name(kind.removesuffix("s"), name, names_in(kind), f"conceptbench list {kind}" if kind == "suites" else "")
    return _folder(kind) / f"{name}{suffix}"


# -- concepts --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ConceptFile:
    """A concepts manifest: the valid ones by name, and the list number of every one that has a name."""

    document: Document
    concepts: dict[str, Concept]
    positions: dict[str, int]
    problems: tuple[Problem, ...]


def read_concepts(path: Path) -> ConceptFile:
    """The concepts of a manifest (a YAML list) and all that is wrong with it."""
    document = read_document(path)
    problems, concepts, positions = list(document.problems), dict[str, Concept](), dict[str, int]()
    if not isinstance(document.value, list):
        if document.node is not None or not problems:
            problems.append(document.problem((), "a concepts file is a list of concepts, and this is none"))
        return ConceptFile(document, {}, {}, tuple(problems))
    for i, item in enumerate(document.value):
        name = item.get("name") if isinstance(item, Mapping) else None
        concept, found = check(Concept, item, document, (i,), f"concept {name!r}: " if name else f"concept number {i + 1}: ")
        problems += found
        if isinstance(name, str) and positions.setdefault(name, i) != i:
            first = document.line((positions[name], "name"))
            problems.append(document.problem((i, "name"), f"the concept {name!r} is in this file already, in line {first}"))
        elif concept is not None:
            concepts[concept.name] = concept
    return ConceptFile(document, concepts, positions, tuple(problems))


@functools.cache
def load_concepts(name: str) -> dict[str, Concept]:
    """The concepts of a manifest by name (a YAML list)."""
    found = read_concepts(find_manifest("concepts", name, ".yaml"))
    refuse(found.problems, "")
    return found.concepts


# -- prompts ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PromptFile:
    """A prompt set: the valid rows and the line that each begins in."""

    path: Path
    rows: tuple[Prompt, ...]
    lines: tuple[int, ...]
    problems: tuple[Problem, ...]


def _header_problems(path: Path, header: Sequence[str]) -> list[str]:
    columns = PromptRow.model_fields
    wrong = [unknown(path, 1, "column", c, columns).message for c in dict.fromkeys(header) if c not in columns]
    wrong += [f"the column {c!r} is there twice" for c in sorted({c for c in header if header.count(c) > 1})]
    wrong += [f"the column {c!r} is missing" for c, f in columns.items() if f.is_required() and c not in header]
    return wrong if {"text", "label"} & set(header) else [*wrong, "the column 'text' is missing (or 'label', for class-conditional bases)"]


def _row_of(header: Sequence[str], cells: Sequence[str]) -> tuple[Prompt | None, list[str]]:
    if len(cells) != len(header):
        quoting = "; a text with a comma in it needs quotes" if len(cells) > len(header) else "; empty ones need their commas"
        return None, [f"{len(cells)} cells where the header has {len(header)}" + quoting]
    values = {k: v for k, v in zip(header, cells, strict=True) if v.strip() and k in PromptRow.model_fields}
    try:
        return PromptRow.model_validate(values).prompt(), []
    except ValidationError as error:
        found = messages(PromptRow, error)
        return None, [f"{place[0]} is empty" if place and place[0] not in values else text.removeprefix("PromptRow: ") for place, text in found]


def read_prompts(path: Path) -> PromptFile:
    """The rows of a prompt set (a CSV with the columns of :class:`PromptRow`) and all that is wrong with it."""
    header: list[str] = []
    rows, lines, problems = list[Prompt](), list[int](), list[Problem]()
    first: dict[str, int] = {}
    line = 1
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        for cells in reader:
            begins, line = line, reader.line_num + 1  # a quoted text may go over several lines
            if not header:
                header = cells
                problems += [Problem(path, begins, m) for m in _header_problems(path, header)]
                if not {c for c, f in PromptRow.model_fields.items() if f.is_required()} <= set(header) or len(set(header)) < len(header):
                    break  # every row would repeat it
            elif cells:
                row, wrong = _row_of(header, cells)
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


@functools.cache
def load_prompts(name: str) -> tuple[Prompt, ...]:
    """The rows of a prompt set (a CSV with the columns of :class:`PromptRow`)."""
    found = read_prompts(find_manifest("sets", name, ".csv"))
    refuse(found.problems, "")
    return found.rows


def prompts_for(set_name: str, split: Split, concepts: list[str]) -> list[Prompt]:
    """The rows of a set for some concepts, in the set's order."""
    rows = [r for r in load_prompts(set_name) if r.split == split and r.concept in concepts]
    missing = sorted(set(concepts) - {r.concept for r in rows})
    if missing:
        raise UserInputError(f"prompt set {set_name!r} has no {split} prompts for: {', '.join(missing)}", "add rows, or take the concept out of the task")
    return rows


# -- suites ----------------------------------------------------------------------------------------------------------
def load_suite(name: str) -> Suite:
    """A suite by name or path, with every name in it checked: against its concepts, its tasks, and what is installed."""
    document = read_document(find_manifest("suites", name, ".yaml"))
    refuse(document.problems, "")
    suite, problems = check(Suite, document.value, document)
    refuse(problems)
    assert suite is not None
    tasks, metrics = dict(enumerate(suite.tasks)), dict(enumerate(suite.metrics))
    refuse(
        [
            *unknown_concepts(document, tasks, load_concepts(suite.concepts)),
            *unknown_plugins(document, metrics, suite.judges, suite.watch),
            *shadowing_judges(document, suite.judges),
            *strays(document, suite.tasks, metrics, dict(enumerate(suite.splits))),
        ]
    )
    return suite


def task_concepts(suite: Suite, task: Task) -> dict[str, Concept]:
    """The concepts of a task by name, targets first, with the task's anchors put in."""
    concepts = load_concepts(suite.concepts)
    chosen = {n: concepts[n] for n in (*task.targets, *task.retained, *task.unseen)}
    return {n: c.model_copy(update={"anchor": task.anchors[n]}) if n in task.anchors else c for n, c in chosen.items()}
