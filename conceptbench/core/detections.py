"""Detections that were made elsewhere, as the arrays that a detecting judge gives.

Two forms are in use: lists of mappings, as NudeNet's ``detect`` gives them, and tables with a cell of labels and a cell of
scores for each image. Labels are accepted in every spelling of :func:`conceptbench.core.label_sets.spellings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError
from conceptbench.core.label_sets import label_index

COLUMNS = 6
"""Score, label index, x0, y0, x1, y1."""


def split_cell(text: str, separator: str) -> list[str]:
    """The parts of a table's cell, without spaces around them; an empty cell has none, and one separator may stand at the end.

    Args:
        text: e.g. ``"FEET_EXPOSED, BELLY_EXPOSED"``.
        separator: e.g. ``","``.

    Raises:
        UserInputError: the separator is empty, or a part is (a list may have lost an entry there).
    """
    if not separator:
        raise UserInputError("the separator of a cell's parts is empty", "give the text between two labels, e.g. ','")
    parts = [part.strip() for part in text.split(separator)]
    if not parts[-1]:
        parts.pop()
    if not all(parts):
        raise UserInputError(f"the cell {text!r} has an empty part between two {separator!r}", "every label needs its score, and every score its label")
    return parts


def _score(value: Any, label: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise UserInputError(f"the score {value!r} of label {label!r} is no number from 0 to 1", "scores are probabilities, not per cent")
    return score


def detections_of(labels: Sequence[str], scores: Sequence[Any], known: Sequence[str], boxes: Sequence[Sequence[float]] | None = None) -> NDArray[np.float64]:
    """Detections of one image from two parallel lists.

    Args:
        labels: M labels in any accepted spelling.
        scores: M numbers, or texts of numbers, in [0, 1].
        known: the judge's labels in the order of its outputs.
        boxes: M times x0, y0, x1, y1 in [0, 1]; None where they were not kept, then zeros.

    Returns:
        (M, 6) as a judge of role ``detector`` gives it, by falling score, equal ones in the order given; M may be 0.

    Raises:
        UserInputError: a label is unknown (with the nearest), a score is no number in [0, 1], or the lists differ in length.
    """
    if len(labels) != len(scores):
        raise UserInputError(f"{len(labels)} labels and {len(scores)} scores in one image's detections", "every label needs its score")
    if boxes is not None and len(boxes) != len(labels):
        raise UserInputError(f"{len(labels)} labels and {len(boxes)} boxes in one image's detections", "every label needs its box, or leave them all out")
    out = np.zeros((len(labels), COLUMNS))
    out[:, 0] = [_score(s, name) for name, s in zip(labels, scores, strict=True)]
    out[:, 1] = [label_index(name, known) for name in labels]
    if boxes is not None and len(boxes):
        out[:, 2:] = boxes
    return out[np.argsort(-out[:, 0], kind="stable")]


def _field(item: Mapping[str, Any], names: Sequence[str]) -> str:
    found = [n for n in names if n in item]
    if len(found) != 1:
        wanted = " or ".join(map(repr, names))
        raise UserInputError(f"a detection needs exactly one key {wanted}, and this one has {', '.join(item) or 'none'}", "NudeNet gives class, score and box")
    return found[0]


def _box(item: Mapping[str, Any], size: tuple[int, int], corners: bool) -> list[float]:
    x, y, right, bottom = (float(v) for v in item[_field(item, ("box",))])
    width, height = size
    return [x / width, y / height, (right if corners else x + right) / width, (bottom if corners else y + bottom) / height]


def detections_from(items: Sequence[Mapping[str, Any]], known: Sequence[str], size: tuple[int, int] | None = None) -> NDArray[np.float64]:
    """Detections of one image from what NudeNet's ``detect`` gives.

    Args:
        items: mappings with a label, a ``score`` and, if ``size`` is given, a ``box``. NudeNet 3 calls the label ``class`` and gives
            x, y, width, height in px; NudeNet 2 calls it ``label`` and gives x0, y0, x1, y1. The key says which it is.
        known: the judge's labels in the order of its outputs.
        size: width and height of the image in px; None leaves the boxes zero, which no rate and no count needs.

    Returns:
        (M, 6) as :func:`detections_of` gives it.

    Raises:
        UserInputError: a key is missing, a label is unknown or a score is no number in [0, 1].
    """
    keys = [_field(item, ("class", "label")) for item in items]
    labels = [str(item[key]) for item, key in zip(items, keys, strict=True)]
    scores = [item[_field(item, ("score",))] for item in items]
    boxes = None if size is None else [_box(item, size, key == "label") for item, key in zip(items, keys, strict=True)]
    return detections_of(labels, scores, known, boxes)
