"""Reads manifests (YAML) and prompt sets (CSV) from the package's prompts folder or from files of the user's."""

from __future__ import annotations

import csv
import functools
import io
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.schemas import Concept, PromptRow, Split, Suite, Task

Model = TypeVar("Model", bound=BaseModel)


def _folder(kind: str) -> Path:
    return Path(str(files("conceptbench.prompts"))) / kind


def names_in(kind: str) -> list[str]:
    """Names of the shipped manifests of a kind: ``suites``, ``concepts`` or ``sets``."""
    return sorted(p.stem for p in _folder(kind).iterdir() if p.suffix in {".yaml", ".csv"})


def _find(kind: str, name: str, suffix: str) -> Path:
    """A shipped manifest by name, or the user's file by path."""
    if name.endswith(suffix):
        path = Path(name)
        if not path.is_file():
            raise UserInputError(f"no such file: {name}", f"shipped {kind}: {', '.join(names_in(kind))}")
        return path
    if name not in names_in(kind):
        raise unknown_name(kind.removesuffix("s"), name, names_in(kind), f"conceptbench list {kind}" if kind == "suites" else "")
    return _folder(kind) / f"{name}{suffix}"


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; a syntax error becomes an input error with its line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserInputError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}", "indent with spaces; quote texts with a colon in them") from error


def _line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """The line of a key in a YAML text, following mapping keys and list numbers down to the last one that exists."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the fields beside the one at a location, for the suggestion after an unknown key."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            annotation: Any = current.model_fields[part].annotation
            inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            current = inner[0] if inner else annotation
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def parse(model: type[Model], value: Any, path: Path) -> Model:
    """Validates a manifest; every problem is reported at once, with its line and the nearest valid key."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        text = path.read_text(encoding="utf-8") if path.suffix == ".yaml" and path.is_file() else ""
        problems = []
        for item in error.errors():
            line = _line_of(text, item["loc"]) if text else None
            where = ".".join(str(p) for p in item["loc"]) or model.__name__
            message = item["msg"]
            if item["type"] == "extra_forbidden":
                close = nearest(str(item["loc"][-1]), _fields_at(model, item["loc"]))
                message = "unknown key" + (f"; did you mean {close!r}?" if close else "")
            problems.append(f"{path.name}{f':{line}' if line else ''}: {where}: {message} (got {str(item.get('input'))[:60]!r})")
        raise UserInputError(
            f"{len(problems)} problem(s) in {path.name}:\n  " + "\n  ".join(problems), "`conceptbench show suite mini` prints a valid suite"
        ) from error


@functools.cache
def load_concepts(name: str) -> dict[str, Concept]:
    """The concepts of a manifest by name (a YAML list)."""
    path = _find("concepts", name, ".yaml")
    concepts = [parse(Concept, item, path) for item in read_yaml(path)]
    return {c.name: c for c in concepts}


@functools.cache
def load_prompts(name: str) -> tuple[PromptRow, ...]:
    """The rows of a prompt set (a CSV with the columns of :class:`PromptRow`)."""
    path = _find("sets", name, ".csv")
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    rows = [parse(PromptRow, {k: v for k, v in row.items() if v not in ("", None)}, path) for row in reader]
    ids = [r.prompt_id for r in rows]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserInputError(f"{path.name}: prompt_id {twice!r} occurs twice", "a prompt_id must be unique in its set")
    return tuple(rows)


def prompts_for(set_name: str, split: Split, concepts: list[str]) -> list[PromptRow]:
    """The rows of a set for some concepts, in the set's order."""
    rows = [r for r in load_prompts(set_name) if r.split == split and r.concept in concepts]
    missing = sorted(set(concepts) - {r.concept for r in rows})
    if missing:
        raise UserInputError(f"prompt set {set_name!r} has no {split} prompts for: {', '.join(missing)}", "add rows, or take the concept out of the task")
    return rows


def load_suite(name: str) -> Suite:
    """A suite by name or path, with every name in it checked against its concepts."""
    path = _find("suites", name, ".yaml")
    suite = parse(Suite, read_yaml(path), path)
    concepts = load_concepts(suite.concepts)
    for task in suite.tasks:
        for concept in (*task.targets, *task.retained):
            if concept not in concepts:
                raise unknown_name(f"concept of task {task.id!r} in {path.name}", concept, concepts)
    for spec in suite.metrics:
        if spec.metric not in METRICS.names():
            raise unknown_name(f"metric in {path.name}", spec.metric, METRICS.names(), "conceptbench list metrics")
        if spec.judge is not None and spec.judge not in JUDGES.names():
            raise unknown_name(f"judge in {path.name}", spec.judge, JUDGES.names(), "conceptbench list judges")
    return suite


def task_concepts(suite: Suite, task: Task) -> dict[str, Concept]:
    """The concepts of a task by name, targets first, with the task's anchors put in."""
    concepts = load_concepts(suite.concepts)
    chosen = {n: concepts[n] for n in (*task.targets, *task.retained)}
    return {n: c.model_copy(update={"anchor": task.anchors[n]}) if n in task.anchors else c for n, c in chosen.items()}
