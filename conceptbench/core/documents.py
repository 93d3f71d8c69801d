"""YAML files read with the line of everything in them, and what is wrong with a file as data: problems are collected, not raised."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from conceptbench.core.errors import UserInputError, nearest, unknown_name

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]
"""Where something is in a YAML value: mapping keys and list numbers from the top."""
MOST_NAMES = 12
HINT = "`conceptbench show suite mini` prints a valid suite; `conceptbench validate FILE` checks everything"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file; ``line`` counts from 1 and is None for the file as a whole. A warning refuses nothing."""

    path: Path
    line: int | None
    message: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}{f':{self.line}' if self.line else ''}: {self.message}"


def refuse(problems: Iterable[Problem], hint: str = HINT) -> None:
    """Raises all problems that are no warnings as one input error."""
    errors = [p for p in problems if not p.warning]
    if len(errors) == 1:
        raise UserInputError(str(errors[0]), hint)
    if errors:
        raise UserInputError(f"{len(errors)} problem(s) in {errors[0].path.name}:\n  " + "\n  ".join(map(str, errors)), hint)


def unknown(path: Path, line: int | None, kind: str, name: str, known: Iterable[str]) -> Problem:
    """The problem of a name that does not exist, with the nearest one or, if none is near, what there is."""
    names = sorted(known)
    shown = ", ".join(names[:MOST_NAMES]) + (" ..." if len(names) > MOST_NAMES else "") if names else "none"
    return Problem(path, line, unknown_name(kind, name, names).message + ("" if nearest(name, names) else f" (known: {shown})"))


@dataclass(frozen=True)
class Document:
    """A YAML file: its value, where everything in it is, and what is wrong with it as YAML."""

    path: Path
    value: Any
    node: yaml.Node | None
    problems: tuple[Problem, ...] = ()

    def line(self, location: Location) -> int | None:
        """The line of a place in the file, or of the last place on the way to it that exists."""
        node = self.node
        line = None if node is None else node.start_mark.line + 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in reversed(node.value) if k.value == str(part)), None)  # the last one counts
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return line

    def problem(self, location: Location, message: str, *, warning: bool = False) -> Problem:
        """A problem at a place of the file."""
        return Problem(self.path, self.line(location), message, warning)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [n for pair in node.value for n in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _repeated_keys(path: Path, root: yaml.Node) -> Iterator[Problem]:
    """Keys that a mapping has twice: YAML keeps the last and drops the others without a word. Aliases are looked at once."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        waiting.extend(_children(node))
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in first:
                yield Problem(path, line, f"the key {key.value!r} is in this mapping already, in line {first[key.tag, key.value]}; only one would count")
            first.setdefault((key.tag, key.value), line)


def read_document(path: Path) -> Document:
    """A YAML file with all that is wrong with it as YAML: unreadable, wrong syntax, a key twice. Tags run nothing."""
    problem: str
    line: int | None = None
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        repeated = () if node is None else tuple(sorted(_repeated_keys(path, node), key=lambda p: p.line or 0))
        return Document(path, None if node is None else loader.construct_document(node), node, repeated)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = f"not valid YAML: {getattr(error, 'problem', None) or error}; indent with spaces; quote texts with a colon in them"
    except RecursionError:
        problem = "not valid YAML: nested too deeply"
    except (OSError, ValueError) as error:  # not UTF-8, or a number or date that is none
        problem = f"not readable as YAML: {error}"
    return Document(path, None, None, (Problem(path, line, problem),))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserInputError: it is not YAML, or a mapping has a key twice; with the line.
    """
    document = read_document(path)
    refuse(document.problems, "")
    return document.value


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Names of the fields beside the one at a location, for the suggestion after an unknown key."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            annotation: Any = current.model_fields[part].annotation
            inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            current = inner[0] if inner else annotation
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def messages(model: type[BaseModel], error: ValidationError) -> list[tuple[Location, str]]:
    """What a schema has against a value: where, and in words, with the nearest valid key."""
    found = []
    for item in error.errors():
        place: Location = item["loc"]
        where = ".".join(str(p) for p in place) or model.__name__
        if item["type"] == "missing":
            found.append((place, f"{where}: this required key is missing"))
        elif item["type"] == "extra_forbidden":
            close = nearest(str(place[-1]), _fields_at(model, place))
            found.append((place, f"{where}: unknown key" + (f"; did you mean {close!r}?" if close else "")))
        else:
            got = f" (got {reprlib.repr(item.get('input'))})" if place else ""  # a message about the whole names what is wrong
            found.append((place, f"{where}: {item['msg'].removeprefix('Value error, ')}{got}"))
    return found


def check(model: type[Model], value: Any, document: Document, at: Location = (), name: str = "") -> tuple[Model | None, list[Problem]]:
    """Validates a part of a document.

    Args:
        model: the schema.
        value: what is at that place of the document.
        document: where it comes from.
        at: the place.
        name: put before each message.

    Returns:
        The part or, if anything is wrong with it, None; and every problem with its line.
    """
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        return None, [document.problem((*at, *place), name + text) for place, text in messages(model, error)]
