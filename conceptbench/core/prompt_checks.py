"""Checks of prompt sets and concepts for :mod:`conceptbench.core.validation`: splits, seeds, counts, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conceptbench.core.documents import Problem, unknown
from conceptbench.core.manifests import ConceptFile, PromptFile
from conceptbench.core.schemas import Prompt, Split

LEAST_PROMPTS = 20
"""Distinct prompts a concept; the clustered interval undercovers with fewer."""
MOST_LINES = 8


def concept_problems(file: ConceptFile) -> list[Problem]:
    """Labels of the wrong form, and neighbours that do not exist (a warning)."""
    found = []
    for name, concept in file.concepts.items():
        at = file.positions[name]
        for j, other in enumerate(concept.neighbours):
            if other not in file.positions:
                problem = unknown(file.document.path, file.document.line((at, "neighbours", j)), f"neighbour of {name!r}", other, file.positions)
                found.append(replace(problem, warning=True))
        for j, label in enumerate(concept.labels):
            if not all(label.partition("/")):
                found.append(file.document.problem((at, "labels", j), f"concept {name!r}: label {label!r} is not of the form head/label"))
    return found


def _same(text: str) -> str:
    """Texts that a text encoder cannot tell apart: letter case and spaces do not count."""
    return " ".join(text.casefold().split())


def prompt_problems(files: Sequence[PromptFile]) -> list[Problem]:
    """What concerns prompts whatever the suite: texts in both splits, of all sets together, and seeds of the wrong parity."""
    found: list[Problem] = []
    heldout: dict[str, tuple[PromptFile, Prompt, int]] = {}
    for file in files:
        for row, line in zip(file.rows, file.lines, strict=True):
            if row.split == "heldout" and not row.is_label:
                heldout.setdefault(_same(row.text), (file, row, line))
    for file in files:
        for row, line in zip(file.rows, file.lines, strict=True):
            if row.split == "development" and not row.is_label and _same(row.text) in heldout:
                other, held, where = heldout[_same(row.text)]
                place = f"line {where}" if other is file else f"{other.path}:{where}"
                message = f"development prompt {row.prompt_id!r} has the text of held-out prompt {held.prompt_id!r} ({place}): that is tuning on test data"
                found.append(Problem(file.path, line, message))
        for split, parity in (("heldout", "even"), ("development", "odd")):
            wrong = [n for r, n in zip(file.rows, file.lines, strict=True) if r.split == split and r.seed is not None and r.seed % 2 != (parity == "odd")]
            if wrong:
                shown = ", ".join(map(str, wrong[:MOST_LINES])) + (f" and {len(wrong) - MOST_LINES} more" if len(wrong) > MOST_LINES else "")
                message = f"seeds of {split} prompts must be {parity}, so that they never meet the other split's or training's: line(s) {shown}"
                found.append(Problem(file.path, wrong[0], message, warning=True))
    return found


def too_few(file: PromptFile, concept: str, split: Split, path: Path, line: int | None) -> list[Problem]:
    """The warning for a concept with few distinct prompts, placed where the caller says; none where there is no prompt at all."""
    texts = {_same(r.text) for r in file.rows if r.concept == concept and r.split == split and not r.is_label}
    if not 0 < len(texts) < LEAST_PROMPTS:
        return []
    message = f"{concept!r} has {len(texts)} distinct {split} prompts in {file.path.name}; with fewer than {LEAST_PROMPTS} its intervals are too narrow"
    return [Problem(path, line, message, warning=True)]


def strangers(file: PromptFile, concepts: ConceptFile) -> list[Problem]:
    """One problem a concept that rows name and the concepts file has not."""
    lines: dict[str, list[int]] = {}
    for row, line in zip(file.rows, file.lines, strict=True):
        if row.concept not in concepts.positions:
            lines.setdefault(row.concept, []).append(line)
    found = []
    for name, where in lines.items():
        problem = unknown(file.path, where[0], f"concept (not in {concepts.document.path.name})", name, concepts.positions)
        more = f"; {len(where)} rows name it" if len(where) > 1 else ""
        found.append(Problem(problem.path, problem.line, problem.message + more))
    return found
