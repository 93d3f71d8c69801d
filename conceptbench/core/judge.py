"""The contract of judges: pretrained models that metrics ask. A judge looks once at an image, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]
"""What a judge says of N images: named arrays whose first axis is N."""

JudgeRole = Literal["classifier", "detector", "faces", "features", "image-text", "distance"]

OUTPUTS: Mapping[JudgeRole, str] = {
    "classifier": "probabilities (N, labels) by head",
    "detector": (
        "`detections` (N, M, 6): score, label index (counted through all heads), x0, y0, x1, y1 in [0, 1], by falling score, unused rows with score 0; "
        "everything above the judge's own floor, so that thresholds are applied afterwards"
    ),
    "faces": "`faces` (N, M, 5): score, x0, y0, x1, y1, unused rows with score 0; `identities` (N, M, labels): probabilities, 0 in unused rows",
    "features": "`features` (N, D) float32",
    "image-text": "`embedding` (N, D) float32 of length 1; `encode_texts` gives those of texts",
    "distance": "`distance` (N,) of each image to its partner, not negative",
}
"""Role -> what a judge of that role gives."""


@dataclass(frozen=True)
class JudgeCard:
    """What a judge is and where it comes from.

    Attributes:
        id: registered name; of a judge that a suite trains ``NAME~HASH``, because its name alone does not say which one it is.
        role: what it gives (:data:`OUTPUTS`).
        sha256: of the weights.
        source, licence, preprocessing: for people.
        labels: head -> labels in the order of the outputs (classifiers, detectors, ``faces``: one head ``identity``).
    """

    id: str
    role: JudgeRole
    sha256: str
    source: str
    licence: str
    preprocessing: str
    labels: Mapping[str, tuple[str, ...]]

    def numbered(self) -> list[str]:
        """All labels as ``head/label`` in the order of the outputs."""
        return [f"{head}/{name}" for head, names in self.labels.items() for name in names]

    def document(self) -> dict[str, Any]:
        """The card as JSON has it; the heads are a list, because their order counts and JSON's keys are sorted."""
        return {**vars(self), "labels": [[head, list(names)] for head, names in self.labels.items()]}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> JudgeCard:
        """The card that :meth:`document` wrote.

        Raises:
            ValueError: it is not one.
        """
        wrong = sorted(set(document) ^ set(cls.__dataclass_fields__))
        if wrong:
            raise ValueError(f"a judge's card has these fields too many, or lacks them: {', '.join(wrong)}")
        try:
            return cls(**{**document, "labels": {str(head): tuple(map(str, names)) for head, names in document["labels"]}})
        except TypeError as error:
            raise ValueError(f"the labels of a judge's card are no list of heads with their labels: {error}") from error


class Judge(Protocol):
    """A pretrained model that looks at images one by one."""

    card: JudgeCard

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Judges images.

        Args:
            images: (N, H, W, 3) uint8 RGB in [0, 255].

        Returns:
            What :data:`OUTPUTS` says of its role; first axis N.
        """
        ...


@runtime_checkable
class StackedJudge(Judge, Protocol):
    """A judge that looks through another one of role ``features``: who has the other's answers need not show it the images.

    Attributes:
        trunk: the other judge.
    """

    trunk: Judge

    def from_features(self, features: NDArray[np.float32]) -> Outputs:
        """What it says of images whose ``features`` (N, D) the trunk gave: the same bytes as for the images themselves."""
        ...


class TextJudge(Judge, Protocol):
    """A judge of role ``image-text``: it also embeds texts, into the same space."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) embeddings of length 1; a text longer than the model's context is cut."""
        ...


class PairJudge(Protocol):
    """A judge of role ``distance``: it compares an image with its partner, the base's image of the same condition and seed."""

    card: JudgeCard

    def __call__(self, images: NDArray[np.uint8], partners: NDArray[np.uint8]) -> Outputs:
        """Compares images.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            partners: (N, H, W, 3) uint8 RGB of the same size.

        Returns:
            ``distance`` (N,) float, not negative.
        """
        ...
