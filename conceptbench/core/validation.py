"""Checks a suite, a concepts file or a prompt set as a whole: every problem at once, with its line and the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conceptbench.core.documents import Document, Location, Problem, check, read_document, unknown
from conceptbench.core.errors import ConceptBenchError, MissingDataError, MissingWeightsError, UserInputError
from conceptbench.core.judge import JudgeCard, JudgeRole
from conceptbench.core.manifests import ConceptFile, PromptFile, find_manifest, find_set, read_concepts, read_prompts, read_set
from conceptbench.core.metric_checks import label_problems, metric_problems
from conceptbench.core.prompt_checks import concept_problems, prompt_problems, strangers, too_few
from conceptbench.core.protocols import spelled_out
from conceptbench.core.registry import BASES, JUDGES
from conceptbench.core.schemas import MetricSpec, Suite, Task
from conceptbench.core.suite_checks import card_before_training, shadowing_judges, strays, unknown_concepts, unknown_plugins
from conceptbench.core.suite_parts import Parts, parts_of


@dataclass(frozen=True)
class Surroundings:
    """What a check must ask of the machine, as functions, so that the core needs no torch.

    Attributes:
        card_of: judge's name -> its card; MissingWeightsError where its weights are not here.
        check_eraser: an eraser's spec, the suite's base and its tasks; raises a ConceptBenchError that says what is wrong, or returns why
            it was not looked at (empty if it was).
    """

    card_of: Callable[[str], JudgeCard]
    check_eraser: Callable[[str, str, Sequence[Task]], str]


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
def _suite(document: Document, around: Surroundings) -> Findings:
    if document.problems and document.value is None:
        return Findings(list(document.problems))
    _, problems = check(Suite, document.value, document)
    parts = parts_of(document)
    found = Findings([*document.problems, *problems])
    concepts = _concepts_of(parts, found)
    sets = _sets_of(parts, found)
    cards = _cards_of(parts, found, around)
    found.problems += [*_base_problems(parts), *_seed_problems(parts), *prompt_problems(list(sets.values()))]
    found.problems += [*unknown_plugins(document, parts.metrics, parts.judges, parts.watch), *shadowing_judges(document, parts.judges)]
    if parts.every_task:
        found.problems += strays(document, parts.tasks.values(), parts.metrics, parts.splits)
    found.problems += metric_problems(document, parts.metrics, cards, parts.headline if parts.every_metric else None, parts.watch)
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


def _concepts_of(parts: Parts, found: Findings) -> ConceptFile | None:
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


def _sets_of(parts: Parts, found: Findings) -> dict[str, PromptFile]:
    sets: dict[str, PromptFile] = {}
    for i, task in parts.tasks.items():
        if task.prompts.set in sets:
            continue
        try:
            sets[task.prompts.set] = read_set(task.prompts.set)
        except MissingDataError as error:
            reason = f"prompt set {task.prompts.set!r}: its rows, because it does not ship and is not here ({error.hint})"
            found.skipped += [] if reason in found.skipped else [reason]
            continue
        except UserInputError as error:
            found.problems.append(parts.document.problem(("tasks", i, "prompts", "set"), error.message))
            continue
        file = sets[task.prompts.set]
        found.problems += file.problems
        if parts.images_per_prompt > 1 and any(r.seed is not None for r in file.rows):
            message = f"with {parts.images_per_prompt} images a prompt, seeds given in {file.path.name} are counted up and break the even/odd rule"
            found.problems.append(parts.document.problem(("images_per_prompt",), message, warning=True))
    return sets


def _seed_problems(parts: Parts) -> list[Problem]:
    """Prompt sets whose seeds judges train on, that do not exist."""
    found = []
    for name, spec in parts.judges.items():
        try:
            _ = spec.seeds_of and find_set(spec.seeds_of)
        except UserInputError as error:
            found.append(parts.document.problem(("judges", name, "seeds_of"), error.message))
    return found


def _coverage_problems(parts: Parts, sets: Mapping[str, PromptFile], concepts: ConceptFile | None) -> list[Problem]:
    """Concepts of tasks without prompts in the task's split, and those with few."""
    found: list[Problem] = []
    seen: set[tuple[str, str, str]] = set()
    for i, task in parts.tasks.items():
        source = task.prompts
        drawn = {n for names in task.drawn.values() for n in names}
        for role, names in (("targets", task.targets), ("retained", task.retained), ("unseen", task.unseen)):
            for j, name in enumerate(names):
                file = sets.get(source.set)
                known = concepts is None or name in concepts.positions
                if file is None or name not in drawn or (source.set, source.split, name) in seen or not known:
                    continue
                seen.add((source.set, source.split, name))
                line = parts.document.line(("tasks", i, role, j))
                counts = {s: sum(r.concept == name and r.split == s for r in file.rows) for s in ("heldout", "development")}
                if not counts[source.split]:
                    there = ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "none at all"
                    message = f"task {task.id!r}: the set {source.set!r} has no {source.split} prompts for {name!r} (it has {there})"
                    found.append(Problem(parts.document.path, line, message))
                found += too_few(file, name, source.split, parts.document.path, line) if source.clusters == "prompt" else []
    return found


def _base_problems(parts: Parts) -> list[Problem]:
    if not parts.base or parts.base in BASES.names() or "/" in parts.base or Path(parts.base).is_dir():
        return []
    return [unknown(parts.document.path, parts.document.line(("base",)), "base", parts.base, BASES.names())]


# -- judges, erasers ----------------------------------------------------------------------------------------
def _cards_of(parts: Parts, found: Findings, around: Surroundings) -> dict[str, JudgeCard]:
    """The cards of the judges that can be asked; what cannot be checked without one is said."""
    cards: dict[str, JudgeCard] = {}
    wanted = {j: i for i, m in reversed(parts.metrics.items()) if (j := _judge_of(m)) in JUDGES.names()}
    for name, i in reversed(wanted.items()):
        card = _card(parts, ("metrics", i, "judge"), name, found, around)
        if card is not None:
            cards[name] = card
    for name, spec in parts.judges.items():
        _check_role(parts, ("judges", name, "trunk"), spec.trunk, "features", f"the trunk of judge {name!r}", found, around)
        cards.setdefault(name, card_before_training(name, spec))
    if parts.watch is not None:
        _check_role(parts, ("watch", "judge"), parts.watch.judge, "image-text", "watch", found, around)
    return cards


def _check_role(parts: Parts, place: Location, name: str, role: JudgeRole, what: str, found: Findings, around: Surroundings) -> None:
    """A judge that is asked by no metric has the role that it needs; one that does not exist was reported."""
    if name not in JUDGES.names():
        return
    card = _card(parts, place, name, found, around)
    if card is not None and card.role != role:
        found.problems.append(parts.document.problem(place, f"{what} needs a judge of role {role!r}, and {name!r} is a {card.role}"))


def _card(parts: Parts, place: Location, name: str, found: Findings, around: Surroundings) -> JudgeCard | None:
    try:
        return around.card_of(name)
    except MissingWeightsError as error:
        reason = f"judge {name!r}: its role and its labels, because its weights are not here ({error.hint})"
        found.skipped += [] if reason in found.skipped else [reason]
    except ConceptBenchError as error:
        found.problems.append(parts.document.problem(place, f"judge {name!r}: {error.message}"))
    return None


def _judge_of(spec: MetricSpec) -> str:
    """The judge that a metric asks, be it its preset's; empty if there is none or the preset is unknown."""
    try:
        return spelled_out(spec)[0].judge or ""
    except ConceptBenchError:
        return ""


def _check_erasers(parts: Parts, around: Surroundings, found: Findings) -> None:
    for i, spec in parts.erasers.items():
        try:
            reason = around.check_eraser(spec, parts.base, tuple(parts.tasks.values()))
        except ConceptBenchError as error:
            found.problems.append(parts.document.problem(("erasers", i), f"eraser {spec!r}: {error.message}"))
        else:
            if reason:
                found.skipped.append(f"eraser {spec!r}: {reason}")
