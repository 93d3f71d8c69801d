"""What a classifying judge's probabilities say beyond its first answer: the concept's probability, and the entropy.

Selective Amnesia (sec. 4.1) reports both for images of the forgotten class: a low probability of the class, and a high
entropy, mean that the judge does not know what it sees. Both are means over images: the entropy of a mean distribution is
another number, high as soon as the images differ.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conceptbench.core.class_labels import Among, Choices
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Better, Metric, Scored
from conceptbench.core.schemas import Concept, Role, Strict


def entropy(probabilities: ArrayLike) -> float:
    """Shannon's entropy of one distribution in nats, from 0 to ln C; 0 log 0 is 0.

    Args:
        probabilities: (C,), not negative, with the sum 1.
    """
    p = np.asarray(probabilities, np.float64)
    p = p[p > 0]
    return max(0.0, float(-(p * np.log(p)).sum()))


class _OfDistribution(Metric):
    """What both share: the distribution of the head that knows the concept, or of a set of its labels, renormalised."""

    role: ClassVar[str] = "classifier"
    is_rate: ClassVar[bool] = False
    reference: ClassVar[str] = "Selective Amnesia (Heng and Soh 2023), sec. 4.1: a ten-way judge trained on CIFAR-10, STL-10 or MNIST"

    class Config(Strict):
        """Options.

        Attributes:
            among: only these labels compete: a label set's name, or a list of ``head/label`` of one head; None: all of the head.
        """

        among: Among = None

    config: _OfDistribution.Config

    def __init__(self, config: _OfDistribution.Config, judge: JudgeCard) -> None:
        """Finds the labels that compete.

        Raises:
            UserInputError: ``among`` is wrong.
        """
        super().__init__(config, judge)
        self.choices = Choices.of(config.among, judge)

    @property
    def id(self) -> str:
        """The registered name."""
        return self.name

    def applies(self, concept: Concept, role: Role) -> bool:
        """If the judge knows the concept, among the labels that compete."""
        return self.choices.place(concept) is not None

    def seen(self, image: Scored) -> tuple[NDArray[np.float64], list[int]] | None:
        """The distribution (C,) and the concept's positions in it; None if the judge gave no probabilities."""
        found = self.choices.place(image.concept)
        assert found is not None
        p = self.choices.distribution(image.said, found[0])
        return None if p is None else (p, found[1])


class ClassProbability(_OfDistribution):
    """The probability that the judge gives the concept: of all its labels together."""

    name, summary = "class_probability", "mean probability that the judge gives the image's concept (Selective Amnesia)"
    unit: ClassVar[str] = "probability"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "noise has a low probability of any concept, too: read it beside `nothing`",
        "networks differ in how sure they are: numbers of two judges cannot be compared",
    )

    @property
    def arithmetic(self) -> str:
        """``mean-p-of-58+10+7way``: the sizes of the judge's heads; with ``among`` ``mean-p-of-NAME``."""
        return f"mean-p-of-{self.choices.name}"

    def better(self, role: Role) -> Better:
        """Lower for what is erased."""
        return "lower" if role == "target" else "higher"

    def value(self, image: Scored) -> float | None:
        """From 0 to 1; None if the judge gave no probabilities."""
        seen = self.seen(image)
        return None if seen is None else min(1.0, float(seen[0][sorted(set(seen[1]))].sum()))


class Entropy(_OfDistribution):
    """How undecided the judge is about an image, in nats."""

    name, summary = "entropy", "mean entropy in nats of the judge's answer to an image (Selective Amnesia)"
    unit: ClassVar[str] = "nats"
    failure_modes: ClassVar[tuple[str, ...]] = (
        "the highest value is ln of the number of labels (ten: 2.303): only numbers with as many labels can be compared",
        "noise is undecided, and a clear picture of something else is not: read it beside `class_probability` and `nothing`",
    )

    @property
    def arithmetic(self) -> str:
        """``mean-nats-of-58+10+7way``: the sizes of the judge's heads; with ``among`` ``mean-nats-of-NAME``."""
        return f"mean-nats-of-{self.choices.name}"

    def better(self, role: Role) -> Better:
        """Higher for what is erased, lower for what is kept."""
        return "higher" if role == "target" else "lower"

    def value(self, image: Scored) -> float | None:
        """From 0 to ln C; None if the judge gave no probabilities."""
        seen = self.seen(image)
        return None if seen is None else entropy(seen[0])
