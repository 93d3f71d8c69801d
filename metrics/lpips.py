"""LPIPS and its like: how far an image is from its partner, the base's image of the same condition and noise."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from conceptbench.core.metric import Better, Metric, Scored
from conceptbench.core.schemas import Concept, Role


class LPIPS(Metric):
    """Mean perceptual distance to the base's images: what is erased should differ, what is kept should not.

    Which network and which size of image is the judge's affair, and so is part of the protocol: ``lpips@pairs/lpips-alex``
    (KPOP) and ``lpips@pairs/lpips-alex-64`` (ESD, UCE, SepME) are different numbers. A target's distance has no best value
    of its own: noise is far from everything (SepME remarks that an intermediate value may be better). Read it beside
    ``nothing``.
    """

    name, summary, role = "lpips", "perceptual distance to the base's image of the same prompt and noise", "distance"
    unit: ClassVar[str] = "distance"
    is_rate: ClassVar[bool] = False
    needs: ClassVar[Literal["images", "pairs"]] = "pairs"

    @property
    def id(self) -> str:
        """``lpips``."""
        return "lpips"

    @property
    def arithmetic(self) -> str:
        """``pairs``: each image with one partner, the mean over pairs."""
        return "pairs"

    def better(self, role: Role) -> Better:
        """Higher for what is erased, lower for what is kept (KPOP, SepME)."""
        return "higher" if role == "target" else "lower"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always."""
        return True

    def value(self, image: Scored) -> float | None:
        """The distance; None, a failure, if it is not a number."""
        distance = float(image.said["distance"])
        return distance if math.isfinite(distance) else None
