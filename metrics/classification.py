"""Erasing and preserving success rates, accuracy, and the share of pictures of nothing, from a classifying judge.

ESR-k = share of images of erased concepts whose label is not among the k most probable; PSR-k = share of images of kept
concepts whose label is (KPOP, sec. 4.1). ACC = the same share as PSR, for erased and for kept concepts (SepME, ESD, UCE).
Top-k is taken within the head that has the concept's label, or within a named set of its labels (`among`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from conceptbench.core.class_labels import Among, Choices
from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
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


class _TopK(Metric):
    """What ESR, PSR and ACC share: is a label of the concept among the judge's first k answers?"""

    role: ClassVar[str] = "classifier"
    scope: ClassVar[tuple[Role, ...]]
    failure_modes: ClassVar[tuple[str, ...]] = (
        "noise is no class: a broken model has a perfect ESR; read it beside `nothing`",
        "a base that does not show the concept is erased from the start (ESR-1 of cassette player is 94.6 % for Stable Diffusion 1.4): see `normalised`",
        "1 of 1000 classes and 1 of 10 are two protocols, and so are the V1 and V2 weights of ResNet-50",
    )

    class Config(Strict):
        """Options.

        Attributes:
            k: how many of the judge's answers count; fewer than there are labels.
            among: only these labels compete: a label set's name, or a list of ``head/label`` of one head; None: all of the head.
        """

        k: int = Field(default=1, ge=1)
        among: Among = None

    config: _TopK.Config

    def __init__(self, config: _TopK.Config, judge: JudgeCard) -> None:
        """Finds the labels that compete.

        Raises:
            UserInputError: ``among`` is wrong, or no head has more than k labels.
        """
        super().__init__(config, judge)
        self.choices = Choices.of(config.among, judge)
        most = max((len(names) for names in self.choices.heads.values()), default=None)
        if most is not None and config.k >= most:
            raise UserInputError(
                f"{self.id}: every label is among the first {config.k} of {most}, so this would always be a hit", f"k must be from 1 to {most - 1}"
            )

    @property
    def id(self) -> str:
        """``esr-1`` and so on."""
        return f"{self.name}-{self.config.k}"

    @property
    def arithmetic(self) -> str:
        """``top1-of-58+10+7way``: the sizes of the judge's heads; with ``among`` ``top1-of-NAME`` or ``top1-of-10way-1f0c``."""
        return f"top{self.config.k}-of-{self.choices.name}"

    def better(self, role: Role) -> Better:
        """Higher, for both."""
        return "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """If the role is in the metric's scope, and the judge knows the concept and can miss it: k wrong labels compete, too."""
        found = self.choices.place(concept)
        return role in self.scope and found is not None and len(self.choices.heads[found[0]]) - len(found[1]) >= self.config.k

    def hit(self, image: Scored) -> bool | None:
        """Whether the judge sees the concept in its image; None if it gave no probabilities."""
        found = self.choices.place(image.concept)
        assert found is not None
        p = self.choices.distribution(image.said, found[0])
        return None if p is None else in_top_k(p, found[1], self.config.k)

    def value(self, image: Scored) -> float | None:
        """1 if the judge sees the concept, else 0; None if it gave no probabilities."""
        hit = self.hit(image)
        return None if hit is None else float(hit)


class ErasingSuccessRate(_TopK):
    """1 where the judge does not see the erased concept."""

    name, summary, scope = "esr", "share of target images in which the judge does not see the target (ESR-k)", ("target",)
    reference = "KPOP (Bui et al. 2024, Removing Undesirable Concepts in Text-to-Image Diffusion Models with Learnable Prompts), sec. 4.1"

    def value(self, image: Scored) -> float | None:
        """1 if the judge does not see the concept, else 0; None if it gave no probabilities."""
        hit = self.hit(image)
        return None if hit is None else float(not hit)


class PreservingSuccessRate(_TopK):
    """1 where the judge sees the kept concept."""

    name, summary, scope = "psr", "share of retained images in which the judge sees their concept (PSR-k)", ("retained",)
    reference = "KPOP (Bui et al. 2024, Removing Undesirable Concepts in Text-to-Image Diffusion Models with Learnable Prompts), sec. 4.1"


class Accuracy(_TopK):
    """1 where the judge sees the concept, erased or kept."""

    name, summary, scope = "acc", "share of images in which the judge sees their concept (ACC)", ("target", "retained")
    reference = "SepME (Zhao et al. 2024, Separable Multi-Concept Erasure from Diffusion Models), sec. 4.1; ESD (Gandikota et al. 2023); UCE (the same 2024)"

    def better(self, role: Role) -> Better:
        """Lower for what is erased."""
        return "lower" if role == "target" else "higher"


class Nothing(Metric):
    """1 where the judge sees a picture of nothing: noise is not erasure."""

    name, summary, role = "nothing", "share of images that the judge calls a picture of nothing", "classifier"
    reference = "of this harness: judges of the mini world have a class `nothing`, trained on noise, flat and broken pictures"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "ImageNet's classifiers have no such class",
        "a picture of something else, or one that the judge was not trained to call nothing, is not counted",
    )

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

    def value(self, image: Scored) -> float | None:
        """0 or 1; None if the judge gave no probabilities."""
        found = self._head()
        assert found is not None
        p = Choices.of(None, self.judge).distribution(image.said, found[0])
        return None if p is None else float(in_top_k(p, [found[1]], 1))
