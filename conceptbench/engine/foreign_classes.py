"""Class names and indices in records that other tools made: which class each is, and which one a concept's is."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conceptbench.core.errors import UserInputError, nearest
from conceptbench.engine.foreign_tables import SHOWN

HEAD = "imagenet"
NAMED = "named"
UNNAMED = "any class that the records do not name"
TWO_OF_A_NAME = {"crane": (134, 517), "maillot": (638, 639)}
"""Names that ImageNet has twice; newer releases of torchvision tell them apart, and the records do not say who wrote them."""


def plain(name: str) -> str:
    """A class name without case, underscores and repeated spaces."""
    return " ".join(name.replace("_", " ").casefold().split())


@dataclass(frozen=True)
class Classes:
    """The classes that a classifier's answers are among.

    Attributes:
        head: ``imagenet``, or ``named`` for those that the records name, which need not be all.
        labels: of the judge that gave the answers, as its card has them.
        indices: plain name -> indices of the classes of that name.
    """

    head: str
    labels: tuple[str, ...]
    indices: Mapping[str, tuple[int, ...]]

    def find(self, answer: str) -> tuple[int, ...]:
        """The classes of a name, an index or ``index:name``; none if there is no such class."""
        index, colon, _ = answer.partition(":")
        if index.strip().isdecimal() and (colon or index == answer):
            return (int(index),) if self.head == HEAD and int(index) < len(self.labels) else self.indices.get(plain(answer), ())
        return self.indices.get(plain(answer), ())

    def row(self, answers: Sequence[str]) -> tuple[int, ...] | None:
        """The classes of one image's answers, best first; None if one of them is unknown. Of two classes of a name the first comes first."""
        found: list[int] = []
        for answer in answers:
            free = [i for i in self.find(answer) if i not in found]
            if not free:
                return None
            found.append(free[0])
        return tuple(found)


@functools.cache
def imagenet() -> Classes:
    """ImageNet's 1000 classes in torchvision's order and names."""
    import torchvision

    names = torchvision.models.get_model_weights("resnet50")["IMAGENET1K_V2"].meta["categories"]
    indices: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(names):
        indices[plain(name)] = (*indices.get(plain(name), ()), i)
    return Classes(HEAD, tuple(f"{i}:{name}" for i, name in enumerate(names)), indices | TWO_OF_A_NAME)


def classes_among(answers: Iterable[str], extra: Iterable[str] = (), *, strict: bool = False) -> tuple[Classes, list[str]]:
    """ImageNet's classes if all answers are names or indices of them; else the classes that are named.

    Args:
        answers: of all images.
        extra: classes that no image need have been given.
        strict: whether the answers must be ImageNet's.

    Returns:
        The classes, and the answers that are not among ImageNet's.

    Raises:
        UserInputError: they must be ImageNet's and some are not; with the nearest.
    """
    whole = imagenet()
    distinct = [a for a in dict.fromkeys(answers) if a]
    strangers = [a for a in distinct if not whole.find(a)]
    if not strangers:
        return whole, []
    if strict:
        named = "; ".join(repr(a) + (f" (nearest: {close!r})" if (close := nearest(plain(a), whole.indices)) else "") for a in strangers[:SHOWN])
        raise UserInputError(f"{len(strangers)} class names are not ImageNet's: {named}", "is --judge-id the classifier that gave these answers?")
    names = list(dict.fromkeys(plain(a) for a in (*distinct, *extra)))
    return Classes(NAMED, (*names, UNNAMED), {name: (i,) for i, name in enumerate(names)}), strangers


def labels_of_concepts(concepts: Sequence[str], classes: Classes, given: Mapping[str, str], *, by_index: bool) -> dict[str, str]:
    """The label ``head/label`` of each concept.

    Args:
        concepts: names.
        classes: what the answers are among.
        given: concept -> class name or index, where the concept's own name is not the class's.
        by_index: whether the answers are indices, which tell classes of one name apart.

    Raises:
        UserInputError: a concept has no class, or ImageNet has two of its name; all at once.
    """
    found: dict[str, str] = {}
    by_name = {plain(c): text for c, text in given.items()}
    twice = {i: group for group in classes.indices.values() if len(group) > 1 for i in group}
    wrong = [f"--label names {c!r}, which is no concept of the records" for c in given if plain(c) not in {plain(n) for n in concepts}]
    for concept in concepts:
        text = by_name.get(plain(concept), concept)
        own = classes.find(text)
        if not own:
            close = nearest(plain(text), classes.indices)
            wrong.append(f"no class is called {text!r}" + (f"; did you mean {close!r}?" if close else ""))
        elif own[0] in twice and not (by_index and len(own) == 1):
            both = " and ".join(map(str, twice[own[0]]))
            wrong.append(f"ImageNet has two classes called {text!r}, {both}: map the columns of indices, and say --label {concept!r}={own[0]}")
        else:
            found[concept] = f"{classes.head}/{classes.labels[own[0]]}"
    if wrong:
        raise UserInputError("; ".join(wrong), "--label CONCEPT=CLASS, a name or an index, says which class a concept is")
    return found
