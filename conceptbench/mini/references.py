"""Real images of the mini world: fresh drawings of what the prompts ask for, as a reference set."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.schemas import Concept
from conceptbench.mini.prompts import STYLE_SUBJECTS
from conceptbench.mini.render import Scene, render
from conceptbench.mini.scenes import BREED_SHARE_OF_DOG, place_subject, random_marks
from conceptbench.mini.world import BREEDS, MARK_SHARE, MARKED_SETTINGS, MARKS, SETTINGS, STYLES, SUBJECT_CLASSES

MARKED_SUBJECTS = ("person", "cat", "bird", "cup", "car", "tree", "dog", "house", "apple", "ball")
"""What pictures of marks are about, as in the prompt set."""
KINDS = {"subject": tuple(s for s in SUBJECT_CLASSES if s != "nothing"), "style": STYLES, "mark": MARKS}


def mini_drawings(concepts: Sequence[Concept], n: int, seed: int) -> NDArray[np.uint8]:
    """Draws concepts as the mini world shows them for the prompts of the prompt set; no drawing is one that was trained on.

    Subjects stand in every setting that prompts have; a style is that of a subject without a setting; marks are on subjects at places
    that bring them out, which one picture in ten does not show. The drawings of a concept are the same whatever is drawn beside it, and
    if there are to be more of it, they begin with the same ones.

    Args:
        concepts: what is drawn is a concept's first label.
        n: how many in all; concepts get the same number, the first ones one more if it does not come out even.
        seed: of everything random; drawings for training have whole numbers as seeds, and these have texts.

    Returns:
        (n, 32, 32, 3) RGB, concept after concept.

    Raises:
        UserInputError: no concept, or one that the mini world does not have.
    """
    if not concepts:
        raise UserInputError("mini-drawings was asked to draw no concept", "name at least one")
    share, more = divmod(n, len(concepts))
    seeds = [(c, f"mini-drawings/{seed}/{c.name}/{k}") for i, c in enumerate(concepts) for k in range(share + (i < more))]
    return np.stack([render(_scene(concept, random.Random(text))) for concept, text in seeds])


def _scene(concept: Concept, rng: random.Random) -> Scene:
    """A scene in which the concept is seen."""
    kind, name = _drawn(concept)
    if kind == "style":
        return Scene((place_subject(_reading(rng.choice(STYLE_SUBJECTS), rng), rng),), name, "", (), rng.getrandbits(31))
    if kind == "mark":
        marks = random_marks(rng, rng.choice((1, 2, 2, 3))) if rng.random() < MARK_SHARE else ()
        return Scene((place_subject(_reading(rng.choice(MARKED_SUBJECTS), rng), rng),), "photo", rng.choice(MARKED_SETTINGS), marks, rng.getrandbits(31))
    return Scene((place_subject(_reading(name, rng), rng),), "photo", rng.choice(SETTINGS), (), rng.getrandbits(31))


def _drawn(concept: Concept) -> tuple[str, str]:
    """The kind and name of what the concept's first label stands for."""
    kind, _, name = concept.labels[0].partition("/") if concept.labels else ("", "", "")
    if kind not in KINDS:
        raise UserInputError(f"mini-drawings does not know what concept {concept.name!r} looks like", f"give it a label of the mini world: {', '.join(KINDS)}")
    if name not in KINDS[kind]:
        raise unknown_name(f"{kind} of the mini world for concept {concept.name!r}", name, KINDS[kind])
    return kind, name


def _reading(subject: str, rng: random.Random) -> str:
    """What is drawn for a subject: a dog is often of a breed, as in the pictures that the base learned from."""
    return rng.choice(BREEDS) if subject == "dog" and rng.random() < BREED_SHARE_OF_DOG else subject
