"""Reads manifests (YAML) and prompt sets (CSV) from the package's prompts folder or from files of the user's.

The ``read_...`` functions never raise for what is in a file: they give what is usable and every problem with its line.
The ``load_...`` functions give the whole or raise all problems at once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from conceptbench.core.documents import Document, Problem, check, read_document, refuse
from conceptbench.core.documents import read_yaml as read_yaml  # also known by this name
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.prompt_files import PromptFile as PromptFile  # also known by these names
from conceptbench.core.prompt_files import read_prompts as read_prompts
from conceptbench.core.schemas import Concept, Prompt, Split, Suite, Task
from conceptbench.core.sources import read_source
from conceptbench.core.suite_checks import shadowing_judges, strays, unknown_concepts, unknown_plugins


# -- where manifests are ---------------------------------------------------------------------------------------------
def _folder(kind: str) -> Path:
    return Path(str(files("conceptbench.prompts"))) / kind


def names_in(kind: str) -> list[str]:
    """Names of the shipped manifests of a kind: ``suites``, ``concepts``, ``sets``, or ``sources`` of sets that do not ship."""
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
def find_set(name: str) -> Path:
    """A prompt set by name: a shipped one, the manifest of one that never ships, or the user's CSV file by path.

    Raises:
        UserInputError: there is none (with the nearest one).
    """
    if name in names_in("sources"):
        return find_manifest("sources", name, ".yaml")
    if name.endswith(".csv") or name in names_in("sets"):
        return find_manifest("sets", name, ".csv")
    raise unknown_name("set", name, [*names_in("sets"), *names_in("sources")], "or a CSV file by path")


def read_set(name: str) -> PromptFile:
    """The rows of a prompt set by name or path, and all that is wrong with it.

    Raises:
        UserInputError: there is none (with the nearest one).
        MissingDataError: it never ships and is not on this machine; with the command that gets it.
    """
    path = find_set(name)
    return read_prompts(path) if path.suffix == ".csv" else read_source(path)


@functools.cache
def load_prompts(name: str) -> tuple[Prompt, ...]:
    """The rows of a prompt set by name or path; raises all that is wrong with it."""
    found = read_set(name)
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
