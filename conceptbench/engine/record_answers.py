"""What the columns of foreign records say, in the form in which judges would have said it, so that metrics can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.detections import detections_from, detections_of, split_cell
from conceptbench.core.documents import Problem
from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard, JudgeRole
from conceptbench.core.label_sets import spellings
from conceptbench.core.metric import Asked, Metric, Scored
from conceptbench.engine.foreign_classes import Classes
from conceptbench.engine.foreign_records import CLIP, FREE, ForeignFile, ForeignRecord
from conceptbench.engine.foreign_tables import is_missing, number_of, refuse_some
from conceptbench.engine.record_metrics import CLIP_TEXTS, Given

SEPARATORS = (",", ";", "|", "-", " ")  # EAP joins by -, in which a score of 1e-05 has one of its own
SCALES: Mapping[str, tuple[float, float, float]] = {"x100": (100.0, -100.0, 100.0), "cosine": (1.0, -1.0, 1.0), "w2.5": (2.5, 0.0, 2.5)}
"""Scale of CLIP scores -> what a cosine of 1 is on it, and its limits."""
KEPT_ONE = (
    "a mapping of label to score keeps one detection a label (Diffusion-MU-Attack's keeps the last one, which has the lowest score), "
    "and no rate or count can be made again from that; export lists of labels and of scores"
)


@dataclass(frozen=True)
class Answers:
    """What a file says of its images; each list has one entry an image, None where it says nothing: that image failed.

    Attributes:
        file: whose.
        cards: role of a judge -> the judge that the columns stand for.
        scale: of the CLIP scores.
        detections: (M, 6) each.
        top: indices of the classes, best first.
        numbers: role or ``value:NAME`` -> numbers.
        failed: role -> lines that have no value.
    """

    file: ForeignFile
    cards: Mapping[JudgeRole, JudgeCard]
    scale: str
    detections: Sequence[NDArray[np.float64] | None] = ()
    top: Sequence[tuple[int, ...] | None] = ()
    numbers: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    failed: Mapping[str, list[int]] = field(default_factory=dict)

    def scored(self, metric: Metric, i: int, asked: Asked) -> Scored | None:
        """Image number i as a metric sees it; None if its cells have no value."""
        if metric.role == "detector":
            found = self.detections[i]
            return None if found is None else Scored(asked, {"detections": found})
        if metric.role == "classifier":
            order, labels = self.top[i], self.cards["classifier"].labels
            return None if order is None else Scored(asked, {head: ranked(order, len(names)) for head, names in labels.items()})
        if metric.role == "image-text":
            value = self.numbers[CLIP_TEXTS[getattr(metric.config, "text", "prompt")]][i]
            return None if value is None else Scored(asked, {}, np.array([value / SCALES[self.scale][0]]))
        if metric.role == "faces":
            return self._faces(i, asked)
        value = self.numbers[metric.name if isinstance(metric, Given) else "lpips"][i]
        return None if value is None else Scored(asked, {"given" if isinstance(metric, Given) else "distance": np.array(value)})

    def _faces(self, i: int, asked: Asked) -> Scored | None:
        count, probability = self.numbers["faces"][i], self.numbers["gcd"][i]
        if count is None or (count > 0 and probability is None):
            return None
        names = self.cards["faces"].labels["identity"]
        faces, identities = np.zeros((int(count), 5)), np.zeros((int(count), len(names)))
        faces[:, 0] = 1
        identities[1:, -1] = 1  # only the largest probability is known: the other faces are nobody's
        if count > 0 and probability is not None:
            identities[0, names.index(asked.concept.name)], identities[0, -1] = probability, 1 - probability
        return Scored(asked, {"faces": faces, "identities": identities})


def ranked(order: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Stand-ins (C,) for probabilities of which only the order is known: falling along ``order``, with the sum 1."""
    out = np.zeros(classes, np.float32)
    out[list(order)] = np.arange(len(order), 0, -1, dtype=np.float32) / (len(order) * (len(order) + 1) / 2)
    return out


# -- detections ------------------------------------------------------------------------------------------------------
def separator_of(cells: Iterable[str], spellings: Iterable[str]) -> str:
    """The separator that splits the cells into labels: the first of :data:`SEPARATORS` of which every part is one, else the one with most.

    Args:
        cells: of labels; lists in JSON are left out.
        spellings: of the labels.
    """
    known, several = set(spellings), [c for c in dict.fromkeys(cells) if c and not c.startswith("[")]
    several = [c for c in several if c not in known]
    shares = [sum(p.strip() in known for c in several for p in c.split(s)) / max(1, sum(len(c.split(s)) for c in several)) for s in SEPARATORS]
    return SEPARATORS[shares.index(max(shares))]


def parts_of(cell: str, separator: str) -> list[Any]:
    """The parts of a cell: of a JSON list, or between separators; the minus of an exponent is no separator.

    Raises:
        UserInputError: the cell is a mapping, or has an empty part.
    """
    if cell.startswith("{"):
        raise UserInputError(KEPT_ONE)
    if cell.startswith("["):
        try:
            found = json.loads(cell.replace("'", '"'))
        except ValueError as error:
            raise UserInputError(f"the cell {cell[:40]!r} is no JSON list: {error}") from error
        return list(found)
    held = re.sub(r"(?<=\d[eE])-(?=\d)", "\0", cell) if separator == "-" else cell
    return [part.replace("\0", "-") for part in split_cell(held, separator)] if held else []


def detections_in(record: ForeignRecord, known: Sequence[str], separator: str) -> NDArray[np.float64] | None:
    """The detections (M, 6) of one image; None where the cells say that nobody looked.

    Empty cells are an image without detections. ESD's script begins with a column of zeros, and so an image that was not there has
    the label ``0.0``.

    Raises:
        UserInputError: an unknown label (with the nearest), a score that is none, or lists that differ in length.
    """
    cells = record.cells
    if "detections" in cells:
        cell = cells["detections"]
        if cell.startswith("{"):
            raise UserInputError(KEPT_ONE)
        return None if cell and is_missing(cell) else detections_from(parts_of(cell, separator), known)
    labels, scores = cells["labels"], cells.get("scores")
    if number_of(labels) is not None or (labels and is_missing(labels)) or (labels and scores is not None and is_missing(scores)):
        return None
    names = [str(p) for p in parts_of(labels, separator)]
    return detections_of(names, [1.0] * len(names) if scores is None else parts_of(scores, separator), known)


def all_detections(file: ForeignFile, known: Sequence[str], separator: str) -> list[NDArray[np.float64] | None]:
    """:func:`detections_in` of all images.

    Raises:
        UserInputError: the first faulty cells with their lines, and how many there are.
    """
    found: list[NDArray[np.float64] | None] = []
    problems: list[Problem] = []
    for record in file.records:
        try:
            found.append(detections_in(record, known, separator))
        except UserInputError as error:
            problems.append(Problem(file.path, record.line, error.message))
    refuse_some(problems, "--separator says what stands between the parts of a cell")
    return found


# -- classes and numbers ---------------------------------------------------------------------------------------------
def all_top(file: ForeignFile, classes: Classes) -> list[tuple[int, ...] | None]:
    """The classes of each image's answers, best first; None where a cell is empty.

    Raises:
        UserInputError: an answer is no class, one is there twice, or the scores do not fall; with lines.
    """
    found: list[tuple[int, ...] | None] = []
    problems: list[Problem] = []
    for r in file.records:
        empty = any(is_missing(a) for a in r.top)
        row = None if empty else classes.row(r.top)
        if row is None and not empty:
            problems.append(Problem(file.path, r.line, f"the answers {', '.join(r.top)} have one that is no class, or one twice"))
        scores = [number_of(s) for s in r.top_scores]
        known = [s for s in scores if s is not None]
        if not empty and known != sorted(known, reverse=True):
            problems.append(Problem(file.path, r.line, f"the scores {', '.join(r.top_scores)} do not fall: the first answer must be the best"))
        found.append(None if len(known) < len(scores) else row)
    refuse_some(problems, "--map top=PATTERN names the columns of the answers, best first")
    return found


def all_numbers(file: ForeignFile, scale: str) -> dict[str, list[float | None]]:
    """The numbers of every column of numbers; None where a cell is empty or not finite.

    Raises:
        UserInputError: a text that is no number, or a number that cannot be what its role says; with lines.
    """
    found: dict[str, list[float | None]] = {}
    problems: list[Problem] = []
    for role in sorted(r for r in file.roles if r in (*CLIP, "lpips", "gcd", "faces") or FREE.fullmatch(r)):
        found[role] = []
        for record in file.records:
            cell = record.cells[role]
            value = number_of({"true": "1", "false": "0"}.get(cell.casefold(), cell) if role.startswith("rate:") else cell)
            found[role].append(value)
            if value is None and not (is_missing(cell) or cell.casefold().lstrip("+-") in ("inf", "infinity")):
                problems.append(Problem(file.path, record.line, f"{role}: {cell!r} is no number"))
            elif value is not None and (why := _impossible(role, value, scale)):
                problems.append(Problem(file.path, record.line, f"{role}: {cell} {why}"))
    refuse_some(problems, "is the role mapped to the right column?")
    return found


def _impossible(role: str, value: float, scale: str) -> str:
    low, high = SCALES[scale][1:]
    if role in CLIP and not low * 1.001 <= value <= high * 1.001:
        return f"is outside of {low:g} to {high:g}, the scale {scale}: say another by --scale"
    if role == "lpips" and value < 0:
        return "is negative, and a distance is not"
    if role == "gcd" and not 0 <= value <= 1:
        return "is no probability"
    if role == "faces" and (value < 0 or value != int(value)):
        return "is no number of faces"
    return "is neither 0 nor 1" if role.startswith("rate:") and value not in (0, 1) else ""


def answers_of(file: ForeignFile, cards: Mapping[JudgeRole, JudgeCard], classes: Classes | None, *, separator: str, scale: str) -> Answers:
    """A file's columns as judges' answers, and the lines in which they are none.

    Args:
        file: of images.
        cards: role -> the judge that its columns stand for.
        classes: of the classifier's answers; None if there are none.
        separator: of the parts of a cell; empty to find it.
        scale: of the CLIP scores.

    Raises:
        UserInputError: cells are not what their role says; with lines.
    """
    detections, top = [], []
    if "detector" in cards:
        known = cards["detector"].numbered()
        separator = separator or separator_of((r.cells.get("labels", "") for r in file.records), spellings(known))
        detections = all_detections(file, known, separator)
    if classes is not None:
        top = all_top(file, classes)
    numbers = all_numbers(file, scale)
    columns: dict[str, Sequence[object]] = {**({"detections": detections} if detections else {}), **({"top": top} if top else {}), **numbers}
    faces = numbers.get("faces", [])
    if "gcd" in columns:  # without a face there is no probability
        columns["gcd"] = [0.0 if n == 0 else p for n, p in zip(faces, numbers["gcd"], strict=True)]
    failed = {role: [r.line for r, value in zip(file.records, values, strict=True) if value is None] for role, values in columns.items()}
    return Answers(file, cards, scale, detections, top, numbers, {role: lines for role, lines in failed.items() if lines})
