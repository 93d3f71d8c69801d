"""Real images of classes as reference sets: what FID, precision and recall compare a class-conditional model's images with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from conceptbench.classes.datasets import load_images
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.schemas import Concept

Reference = Callable[[Sequence[Concept], int, int], NDArray[np.uint8]]


def reference(data: str) -> Reference:
    """The training images of a data set's classes."""

    def images(concepts: Sequence[Concept], n: int, seed: int) -> NDArray[np.uint8]:
        """The first images of each class in an order that the seed shuffles.

        Concepts get the same number of the n images, the first ones one more; of a class that has fewer, all of it.

        Raises:
            UserInputError: no concept, or one whose first phrase is no class.
        """
        if not concepts:
            raise UserInputError(f"{data} was asked for no concept", "name at least one")
        found = load_images(data, "train")
        share, more = divmod(n, len(concepts))
        chosen = []
        for i, concept in enumerate(concepts):
            name = concept.phrases[0]
            if name not in found.classes:
                raise unknown_name(f"class of {data} for concept {concept.name!r}", name, found.classes)
            own = np.flatnonzero(found.labels == found.classes.index(name))
            chosen.append(np.random.default_rng([seed, found.classes.index(name)]).permutation(own)[: share + (i < more)])
        return found.images[np.concatenate(chosen)]

    return images


digits = reference("digits")
mnist = reference("mnist")
cifar10 = reference("cifar10")
stl10 = reference("stl10")
