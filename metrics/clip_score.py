"""CLIP score: how well an image fits its prompt, from an image-text judge's cosine."""

from __future__ import annotations

from typing import ClassVar, Literal

from conceptbench.core.metric import Better, Metric, Scored
from conceptbench.core.schemas import Concept, Role, Strict


def scaled(cosine: float, scale: str) -> float:
    """A cosine in [-1, 1] on one of the field's scales.

    ``x100``: 100 cos (torchmetrics; its clamp at 0 is on the mean and does not change a positive one), ``cosine``: as it is
    (Forget-Me-Not), ``w2.5``: 2.5 max(cos, 0) (CLIPScore, Hessel et al. 2021; Concept Ablation).
    """
    return {"x100": 100 * cosine, "cosine": cosine, "w2.5": 2.5 * max(cosine, 0.0)}[scale]


class CLIPScore(Metric):
    """Mean cosine of image and prompt embeddings. For an erased concept a lower score says that it is gone."""

    name, summary, role = "clip_score", "similarity of image and prompt", "image-text"
    unit: ClassVar[str] = "score"
    is_rate: ClassVar[bool] = False

    class Config(Strict):
        """Options: the scale (:func:`scaled`)."""

        scale: Literal["x100", "cosine", "w2.5"] = "x100"

    config: CLIPScore.Config

    @property
    def id(self) -> str:
        """``clip_score``."""
        return "clip_score"

    @property
    def arithmetic(self) -> str:
        """The scale."""
        return self.config.scale

    def better(self, role: Role) -> Better:
        """Lower for what is erased."""
        return "lower" if role == "target" else "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always."""
        return True

    def value(self, image: Scored) -> float:
        """The scaled cosine."""
        return scaled(float(image.said["cosine"]), self.config.scale)
