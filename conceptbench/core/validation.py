"""Checks a suite, a concepts file or a prompt set as a whole: every problem at once, with its line and the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from conceptbench.core.documents import Document, Problem, check, read_document, unknown
from conceptbench.core.errors import ConceptBenchError, MissingWeightsError, UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import ConceptFile, PromptFile, find_manifest, read_concepts, read_prompts, unknown_concepts, unknown_plugins
from conceptbench.core.metric_checks import label_problems, metric_problems
from conceptbench.core.prompt_checks import concept_problems, prompt_problems, strangers, too_few
from conceptbench.core.protocols import spelled_out
from conceptbench.core.registry import BASES, JUDGES
from conceptbench.core.schemas import Headline, MetricSpec, Suite, Task
from conceptbench.core.trained_judges import TrainedJudgeSpec

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Surroundings:
    """What a check must ask of the machine, as functions, so that the core needs no torch.

    Attributes:
        card_of: judge's name -> its card; MissingWeightsError where its weights are not here.
        check_eraser: an eraser's spec and the suite's base; raises a ConceptBenchError that says what is wrong, or returns why
            it was not looked at (empty if it was).
    """

    card_of: Callable[[str], JudgeCard]
    check_eraser: Callable[[str, str], str]


@dataclass
class Findings:
    """What a check found.

    Attributes:
        problems: errors and warnings, in the order of the files and lines.
        checked: what was looked at, with counts.
        skipped: what was not, and why.
    """

    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """What makes the files unusable."""
        return [p for p in self.problems if not p.warning]

    @property
    def warnings(self) -> list[Problem]:
        """What should be known."""
        return [p for p in self.problems if p.warning]


@dataclass(frozen=True)
class _Parts:
    """What is usable of a suite, however faulty the rest; lists by their number in the file."""

    document: Document
    base: str
    concepts: str
    tasks: dict[int, Task]
    metrics: dict[int, MetricSpec]
    erasers: dict[int, str]
    headline: Headline | None
    judges: dict[str, TrainedJudgeSpec]
    images_per_prompt: int
    every_metric: bool

    def concept_names(self) -> list[str]:
        """Concepts of all tasks, each once."""
        return list(dict.fromkeys(n for t in self.tasks.values() for n in (*t.targets, *t.retained)))


def validate(name: str, around: Surroundings) -> Findings:
    """Checks a suite by name, or a file: a suite or a concepts file (YAML), or a prompt set (CSV).

    Raises:
        UserInputError: there is no such suite or file.
    """
    if name.endswith(".csv"):
        return _prompts_alone(read_prompts(find_manifest("sets", name, ".csv")))
    document = read_document(find_manifest("suites", name, ".yaml"))
    if isinstance(document.value, list):
        return _concepts_alone(read_concepts(document.path))
    return _suite(document, around)


# -- files alone -----------------------------------------------------------------------------------------------------
def _prompts_alone(file: PromptFile) -> Findings:
    names = sorted({r.concept for r in file.rows})
    few = [w for n in names for w in too_few(file, n, "heldout", file.path, file.lines[[r.concept for r in file.rows].index(n)])]
    return Findings(
        _in_order([*file.problems, *prompt_problems([file]), *few]),
        [f"{len(file.rows)} prompts of {len(names)} concepts"],
        ["whether the concepts exist: that needs a suite"],
    )


def _concepts_alone(file: ConceptFile) -> Findings:
    return Findings(
        _in_order([*file.problems, *concept_problems(file)]),
        [f"{len(file.concepts)} concepts"],
        ["whether judges know the labels: that needs a suite"],
    )


# -- suites ----------------------------------------------------------------------------------------------------------
def _usable(model: type[Part], value: Any) -> Part | None:
    """What a faulty value means without its unknown keys; None if more is wrong. Whoever asks has reported the faults."""
    for _ in range(2):
        try:
            return model.model_validate(value)
        except ValidationError as error:
            top = {e["loc"][0] for e in error.errors() if e["type"] == "extra_forbidden" and len(e["loc"]) == 1}
            if not isinstance(value, Mapping) or not top:
                return None
            value = {k: v for k, v in value.items() if k not in top}
    return None


def _each(model: type[Part], values: Any) -> dict[int, Part]:
    found = {i: _usable(model, v) for i, v in enumerate(values)} if isinstance(values, list) else {}
    return {i: part for i, part in found.items() if part is not None}


def _parts(document: Document) -> _Parts:
    value: Mapping[Any, Any] = document.value if isinstance(document.value, Mapping) else {}
    metrics = _each(MetricSpec, value.get("metrics"))
    raw = value.get("metrics")
    erasers = value.get("erasers")
    number = value.get("images_per_prompt", 1)
    own = value["judges"] if isinstance(value.get("judges"), Mapping) else {}
    return _Parts(
        document,
        base=value["base"] if isinstance(value.get("base"), str) else "",
        concepts=value["concepts"] if isinstance(value.get("concepts"), str) else "",
        tasks=_each(Task, value.get("tasks")),
        metrics=metrics,
        erasers={i: e for i, e in enumerate(erasers) if isinstance(e, str)} if isinstance(erasers, list) else {},
        headline=_usable(Headline, value.get("headline")),
        judges={str(n): j for n, v in own.items() if (j := _usable(TrainedJudgeSpec, v)) is not None},
        images_per_prompt=number if isinstance(number, int) else 1,
        every_metric=isinstance(raw, list) and all(_whole(MetricSpec, v) for v in raw),
    )


def _whole(model: type[BaseModel], value: Any) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True


def _suite(document: Document, around: Surroundings) -> Findings:
    if document.problems and document.value is None:
        return Findings(list(document.problems))
    _, problems = check(Suite, document.value, document)
    parts = _parts(document)
    found = Findings([*document.problems, *problems])
    concepts = _concepts_of(parts, found)
    sets = _sets_of(parts, found)
    cards = _cards_of(parts, found, around)
    found.problems += [*_base_problems(parts), *unknown_plugins(document, parts.metrics, parts.judges), *prompt_problems(list(sets.values()))]
    found.problems += metric_problems(document, parts.metrics, cards, parts.headline if parts.every_metric else None)
    _check_erasers(parts, around, found)
    if concepts is not None:
        found.problems += [*unknown_concepts(document, parts.tasks, concepts.positions), *label_problems(parts.concept_names(), concepts, cards)]
        found.problems += [p for file in sets.values() for p in strangers(file, concepts)]
    found.problems += _coverage_problems(parts, sets, concepts)
    names = parts.concept_names()
    rows = sum(1 for s in sets.values() for r in s.rows if r.concept in names)
    found.checked.append(
        f"{len(parts.tasks)} tasks, {len(names)} concepts, {rows} prompts, {len(parts.metrics)} metrics, {len(cards)} judges, {len(parts.erasers)} erasers"
    )
    found.problems = _in_order(found.problems)
    return found


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, file by file as they first come, by line, errors before warnings."""
    once = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(p.path for p in once))
    return sorted(once, key=lambda p: (files.index(p.path), p.line or 0, p.warning))


def _concepts_of(parts: _Parts, found: Findings) -> ConceptFile | None:
    if not parts.concepts:
        found.skipped.append("concepts: the suite names no file")
        return None
    try:
        file = read_concepts(find_manifest("concepts", parts.concepts, ".yaml"))
    except UserInputError as error:
        found.problems.append(parts.document.problem(("concepts",), error.message))
        return None
    found.problems += [*file.problems, *concept_problems(file)]
    return file


def _sets_of(parts: _Parts, found: Findings) -> dict[str, PromptFile]:
    sets: dict[str, PromptFile] = {}
    for i, task in parts.tasks.items():
        if task.prompts.set in sets:
            continue
        try:
            sets[task.prompts.set] = read_prompts(find_manifest("sets", task.prompts.set, ".csv"))
        except UserInputError as error:
            found.problems.append(parts.document.problem(("tasks", i, "prompts", "set"), error.message))
            continue
        file = sets[task.prompts.set]
        found.problems += file.problems
        if parts.images_per_prompt > 1 and any(r.seed is not None for r in file.rows):
            message = f"with {parts.images_per_prompt} images a prompt, seeds given in {file.path.name} are counted up and break the even/odd rule"
            found.problems.append(parts.document.problem(("images_per_prompt",), message, warning=True))
    return sets


def _coverage_problems(parts: _Parts, sets: Mapping[str, PromptFile], concepts: ConceptFile | None) -> list[Problem]:
    """Concepts of tasks without prompts in the task's split, and those with few."""
    found: list[Problem] = []
    seen: set[tuple[str, str, str]] = set()
    for i, task in parts.tasks.items():
        source = task.prompts
        for role, names in (("targets", task.targets), ("retained", task.retained)):
            for j, name in enumerate(names):
                file = sets.get(source.set)
                if file is None or (source.set, source.split, name) in seen or (concepts is not None and name not in concepts.positions):
                    continue
                seen.add((source.set, source.split, name))
                line = parts.document.line(("tasks", i, role, j))
                counts = {s: sum(r.concept == name and r.split == s for r in file.rows) for s in ("heldout", "development")}
                if not counts[source.split]:
                    there = ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "none at all"
                    message = f"task {task.id!r}: the set {source.set!r} has no {source.split} prompts for {name!r} (it has {there})"
                    found.append(Problem(parts.document.path, line, message))
                found += too_few(file, name, source.split, parts.document.path, line)
    return found


def _base_problems(parts: _Parts) -> list[Problem]:
    if not parts.base or parts.base in BASES.names() or "/" in parts.base or Path(parts.base).is_dir():
        return []
    return [unknown(parts.document.path, parts.document.line(("base",)), "base", parts.base, BASES.names())]


# -- judges, erasers ----------------------------------------------------------------------------------------
def _cards_of(parts: _Parts, found: Findings, around: Surroundings) -> dict[str, JudgeCard]:
    """The cards of the judges that can be asked; what cannot be checked without one is said."""
    cards: dict[str, JudgeCard] = {}
    wanted = {j: i for i, m in reversed(parts.metrics.items()) if (j := _judge_of(m)) in JUDGES.names()}
    for name, i in reversed(wanted.items()):
        try:
            cards[name] = around.card_of(name)
        except MissingWeightsError as error:
            found.skipped.append(f"judge {name!r}: its role and its labels, because its weights are not here ({error.hint})")
        except ConceptBenchError as error:
            found.problems.append(parts.document.problem(("metrics", i, "judge"), f"judge {name!r}: {error.message}"))
    for name, spec in parts.judges.items():
        if spec.trunk not in JUDGES.names():
            found.problems.append(unknown(parts.document.path, parts.document.line(("judges", name, "trunk")), "judge", spec.trunk, JUDGES.names()))
        labels = {spec.head: tuple(spec.classes)}
        cards[name] = JudgeCard(name, "classifier", "", "trained on the base's own images", "", "", labels)
    return cards


def _judge_of(spec: MetricSpec) -> str:
    """The judge that a metric asks, be it its preset's; empty if there is none or the preset is unknown."""
    try:
        return spelled_out(spec)[0].judge or ""
    except ConceptBenchError:
        return ""


def _check_erasers(parts: _Parts, around: Surroundings, found: Findings) -> None:
    for i, spec in parts.erasers.items():
        try:
            reason = around.check_eraser(spec, parts.base)
        except ConceptBenchError as error:
            found.problems.append(parts.document.problem(("erasers", i), f"eraser {spec!r}: {error.message}"))
        else:
            if reason:
                found.skipped.append(f"eraser {spec!r}: {reason}")
