"""Erasing and preserving success rates, accuracy, and the share of pictures of nothing, from a classifying judge.

ESR-k = share of images of erased concepts whose label is not among the k most probable; PSR-k = share of images of kept
concepts whose label is (KPOP, sec. 4.1). Top-k is taken within the head that has the concept's label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from conceptbench.core.metric import Better, Metric, Scored
from conceptbench.core.schemas import Concept, Role, Strict


def in_top_k(probabilities: NDArray[np.floating], wanted: Sequence[int], k: int) -> bool:
    """Whether one of the wanted classes is among the k most probable.

    Args:
        probabilities: (C,) of one image. Among equal ones the smaller index comes first.
        wanted: class indices.
        k: at least 1; more than C counts as C.
    """
    order = np.argsort(-np.asarray(probabilities, np.float64), kind="stable")[:k]
    return bool(np.isin(order, np.asarray(wanted)).any())


def head_and_indices(concept: Concept, labels: dict[str, tuple[str, ...]]) -> tuple[str, list[int]] | None:
    """The judge's head that knows the concept, and the indices of the concept's labels in it; None if no head does."""
    for head, names in labels.items():
        wanted = [names.index(label.partition("/")[2]) for label in concept.labels if label.partition("/")[0] == head and label.partition("/")[2] in names]
        if wanted:
            return head, wanted
    return None


class _TopK(Metric):
    """What ESR, PSR and ACC share: is a label of the concept among the judge's first k answers?"""

    role: ClassVar[str] = "classifier"
    scope: ClassVar[tuple[Role, ...]]

    class Config(Strict):
        """Options: k, how many of the judge's answers count."""

        k: int = Field(default=1, ge=1)

    config: _TopK.Config

    @property
    def id(self) -> str:
        """``esr-1`` and so on."""
        return f"{self.name}-{self.config.k}"

    @property
    def arithmetic(self) -> str:
        """``top1-of-58+10+7way``: k, and the sizes of the judge's heads."""
        return f"top{self.config.k}-of-{'+'.join(str(len(names)) for names in self.judge.labels.values())}way"

    def better(self, role: Role) -> Better:
        """Higher, for both."""
        return "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """If the role is in the metric's scope and a head of the judge knows the concept."""
        return role in self.scope and head_and_indices(concept, dict(self.judge.labels)) is not None

    def hit(self, image: Scored) -> bool:
        """Whether the judge sees the concept in its image."""
        found = head_and_indices(image.concept, dict(self.judge.labels))
        assert found is not None
        return in_top_k(image.said[found[0]], found[1], self.config.k)


class ErasingSuccessRate(_TopK):
    """1 where the judge does not see the erased concept."""

    name, summary, scope = "esr", "share of target images in which the judge does not see the target (ESR-k)", ("target",)

    def value(self, image: Scored) -> float:
        """0 or 1."""
        return float(not self.hit(image))


class PreservingSuccessRate(_TopK):
    """1 where the judge sees the kept concept."""

    name, summary, scope = "psr", "share of retained images in which the judge sees their concept (PSR-k)", ("retained",)

    def value(self, image: Scored) -> float:
        """0 or 1."""
        return float(self.hit(image))


class Accuracy(_TopK):
    """1 where the judge sees the concept, erased or kept."""

    name, summary, scope = "acc", "share of images in which the judge sees their concept (ACC)", ("target", "retained")

    def better(self, role: Role) -> Better:
        """Lower for what is erased."""
        return "lower" if role == "target" else "higher"

    def value(self, image: Scored) -> float:
        """0 or 1."""
        return float(self.hit(image))


class Nothing(Metric):
    """1 where the judge sees a picture of nothing: noise is not erasure."""

    name, summary, role = "nothing", "share of images that the judge calls a picture of nothing", "classifier"

    @property
    def id(self) -> str:
        """``nothing``."""
        return "nothing"

    @property
    def arithmetic(self) -> str:
        """The class must be the judge's first answer."""
        return "top1"

    def better(self, role: Role) -> Better:
        """Lower, for both."""
        return "lower"

    def _head(self) -> tuple[str, int] | None:
        return next(((h, n.index("nothing")) for h, n in self.judge.labels.items() if "nothing" in n), None)

    def applies(self, concept: Concept, role: Role) -> bool:
        """If the judge has a class ``nothing``."""
        return self._head() is not None

    def value(self, image: Scored) -> float:
        """0 or 1."""
        head = self._head()
        assert head is not None
        return float(in_top_k(image.said[head[0]], [head[1]], 1))
