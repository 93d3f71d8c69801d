"""Named sets of judges' labels, and other spellings of labels: data in ``prompts/label_sets.yaml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from conceptbench.core.documents import check, read_document, refuse
from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.core.files import key_of
from conceptbench.core.schemas import Strict

MOST_NAMED = 3  # labels that a list's name spells out


class LabelSets(Strict):
    """The file's content.

    Attributes:
        sets: name -> labels as ``head/label``.
        aliases: head -> another spelling -> the label.
    """

    sets: dict[str, tuple[str, ...]]
    aliases: dict[str, dict[str, str]]


@functools.cache
def label_sets() -> LabelSets:
    """The shipped sets and spellings."""
    document = read_document(Path(str(files("conceptbench.prompts"))) / "label_sets.yaml")
    found, problems = check(LabelSets, document.value, document)
    refuse([*document.problems, *problems], "")
    assert found is not None
    return found


def load_label_set(name: str) -> tuple[str, ...]:
    """The labels of a set, as ``head/label``.

    Raises:
        UserInputError: there is no such set (with the nearest, and all there are).
    """
    sets = label_sets().sets
    if name not in sets:
        raise unknown_name("label set", name, sets)
    return sets[name]


@functools.cache
def _spellings(known: tuple[str, ...]) -> Mapping[str, int]:
    bare = [name.rpartition("/")[2] for name in known]
    indices = {name: i for i, name in enumerate(bare) if bare.count(name) == 1} | {name: i for i, name in enumerate(known)}
    aliases = [(head, other, label) for head, others in label_sets().aliases.items() for other, label in others.items()]
    full = {f"{head}/{other}": indices[f"{head}/{label}"] for head, other, label in aliases if f"{head}/{label}" in indices}
    short = {other: indices[label] for _, other, label in aliases if label in indices}
    return short | full | indices


def spellings(known: Sequence[str]) -> Mapping[str, int]:
    """Every accepted spelling of a judge's labels: as they are, without the head where only one head has the label, and by alias.

    Args:
        known: the labels in the order of the judge's outputs, as ``head/label``
            (:meth:`~conceptbench.core.judge.JudgeCard.numbered`) or bare.

    Returns:
        Spelling -> index.
    """
    return _spellings(tuple(known))


def label_index(name: str, known: Sequence[str]) -> int:
    """The index of a label in any of its :func:`spellings`.

    Raises:
        UserInputError: there is no such label; with the nearest spelling and all labels.
    """
    accepted = spellings(known)
    if name not in accepted:
        close = nearest(name, accepted)
        raise UserInputError(f"unknown label {name!r}" + (f"; did you mean {close!r}?" if close else ""), f"known: {', '.join(known) or 'none'}")
    return accepted[name]


def label_indices(names: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """The indices of several labels, sorted, each once.

    Raises:
        UserInputError: there is no such label.
    """
    return tuple(sorted({label_index(name, known) for name in names}))


def plain_label(name: str) -> str:
    """A label in its own spelling and without its head: ``nudity/EXPOSED_FEET`` and ``FEET_EXPOSED`` give ``FEET_EXPOSED``."""
    head, _, bare = name.rpartition("/")
    of_heads = label_sets().aliases
    return next((others[bare] for h, others in of_heads.items() if head in ("", h) and bare in others), bare)


def name_of_labels(names: Sequence[str]) -> str:
    """A name for a list of labels that depends on neither order nor spelling: a set's, up to three labels, or a number with a hash."""
    plain = sorted({plain_label(n) for n in names})
    for name, labels in label_sets().sets.items():
        if sorted(map(plain_label, labels)) == plain:
            return name
    return "+".join(p.lower() for p in plain) if len(plain) <= MOST_NAMED else f"{len(plain)}labels.{key_of(plain)[:6]}"
