"""What metrics see of images: what the judges said, and how near an image is to the texts that a metric asks about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.metric import NO_TEXTS, Asked, OfImages, Scored
from conceptbench.engine.images import ImageSpec
from conceptbench.engine.measures import Measures

Heard = Mapping[str, Mapping[str, Mapping[str, NDArray[Any]]]]
"""judge -> image key -> what it said of the image."""


class TextBook:
    """Embeddings of texts by image-text judges, each text once.

    Args:
        judges: by name.
    """

    def __init__(self, judges: Mapping[str, Any]) -> None:
        self._judges = judges
        self._known: dict[str, dict[str, NDArray[np.float32]]] = {}

    def learn(self, judge: str, texts: Iterable[str]) -> None:
        """Embeds those texts that are new, all at once."""
        known = self._known.setdefault(judge, {})
        new = [t for t in dict.fromkeys(texts) if t not in known]
        if new:
            known.update(zip(new, self._judges[judge].encode_texts(new), strict=True))

    def cosines(self, judge: str, embedding: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float32]:
        """(T,) of one image's embedding (D,) with each text."""
        known = self._known.get(judge, {})
        if any(t not in known for t in texts):
            self.learn(judge, texts)
            known = self._known[judge]
        return np.stack([known[t] for t in texts]) @ embedding


@dataclass(frozen=True)
class Model:
    """A model to score: its row names and what the judges said of its images.

    Attributes:
        eraser, preset: row fields.
        key_of: image -> its key under this model.
        heard: judge -> image key -> what it said; a judge that compares with the base is missing for the base itself.
        extra: further row fields (hashes, cost).
        edited: the erasure's weights and cost, for metrics of erasures; None if it is not made.
        whole: whether it is an erasure, of which such metrics are asked; not for the base and for images without weights.
        probed: (probe's protocol, concept) -> what the probe found.
    """

    eraser: str
    preset: str
    key_of: Callable[[ImageSpec], str]
    heard: Heard
    extra: Mapping[str, Any]
    edited: Any = None
    whole: bool = True
    probed: Mapping[tuple[str, str], Any] = field(default_factory=dict)


class Looker:
    """Shows images to metrics.

    Args:
        measures: for the roles of the judges.
        concepts: of the task, by name.
        book: of texts.
    """

    def __init__(self, measures: Measures, concepts: Mapping[str, Any], book: TextBook) -> None:
        self._concepts, self._book = concepts, book
        self._texts = {n for n, j in measures.judges.items() if j.card.role == "image-text"}

    def asked(self, spec: ImageSpec) -> Asked:
        """What an image was asked to show."""
        return Asked(self._concepts[spec.concept], spec.role, spec.prompt_id, spec.condition.text, spec.content)

    def learn(self, metric: OfImages, judge: str, specs: Iterable[ImageSpec]) -> None:
        """Embeds the texts that a metric will ask about."""
        if judge in self._texts:
            self._book.learn(judge, (t for spec in specs for t in metric.texts(self.asked(spec))))

    def scored(self, metric: OfImages, judge: str, spec: ImageSpec, said: Mapping[str, NDArray[Any]]) -> Scored:
        """One image as a metric sees it."""
        asked = self.asked(spec)
        if judge not in self._texts:
            return Scored(asked, said)
        texts = metric.texts(asked)
        return Scored(asked, said, self._book.cosines(judge, said["embedding"], texts) if texts else NO_TEXTS)
