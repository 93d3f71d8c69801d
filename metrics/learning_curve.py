"""What a watched training looked like on its way: one point of the curve that the harness takes while an eraser trains."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from conceptbench.core.judge import JudgeCard, JudgeRole
from conceptbench.core.metric import Better
from conceptbench.core.schemas import Strict
from conceptbench.core.whole_metric import Edited, ErasureMetric

Pair = Literal["c_e, x_e", "c_e, x_n", "c_n, x_n", "prompt"]
BETTER: dict[str, Better] = {"c_e, x_e": "lower", "c_n, x_n": "higher"}


class LearningCurve(ErasureMetric):
    """A cosine at one point of a training (KPOP, sec. 5.5 and fig. 4), of the curve that a suite's ``watch`` makes.

    ``c_e, x_e``: of the target's phrase and images drawn for it with the weights of that step. ``c_e, x_n``: of the phrase and
    images of its anchor. ``c_n, x_n``: of the anchor and its images. ``prompt``: of a learned prompt and ``text`` in the space of the
    base's own text encoder. ``at`` is a share of the looks that were taken: 0 the first one, 1 the last.
    """

    name, summary = "learning_curve", "a cosine of text and image, or of a learned prompt and a text, at a point of a watched training"
    reference = "KPOP, sec. 5.5, fig. 4: curves, without numbers"
    failure_modes = (
        "few images a look: their cosine is noisy, and neighbouring looks are of the same noise",
        "the first look is after the first step of a training, not before it",
        "closed-form erasers are looked at once a target; those that work at run time, and checkpoints made elsewhere, have no curve",
        "the cosine with a text is low for any vector that is far from all texts: compare texts with each other",
    )
    role: JudgeRole = "image-text"  # type: ignore[misc] # other metrics of erasures ask no judge
    watched = True
    missing = "nothing of the kind was watched: no training here, or one without a prompt"

    class Config(Strict):
        """Options.

        Attributes:
            of: which pair.
            text: with ``prompt``: one of the texts that the suite watches.
            at: share of the looks, 0 to 1.
        """

        of: Pair = "c_e, x_e"
        text: str = ""
        at: float = Field(default=1.0, ge=0, le=1)

        @model_validator(mode="after")
        def _one_text(self) -> LearningCurve.Config:
            if (self.of == "prompt") != bool(self.text):
                raise ValueError(f"of is {self.of!r} and text is {self.text!r}; give `text` with `of: prompt`, and with no other")
            return self

    config: LearningCurve.Config

    def __init__(self, config: LearningCurve.Config, judge: JudgeCard) -> None:
        super().__init__(config, judge)
        self.unit = "cosine"
        self.curve = f"cos(prompt, {config.text!r})" if config.text else f"cos({config.of})"

    @property
    def id(self) -> str:
        """``learning_curve-c_e-x_e-1``, ``learning_curve-prompt-a-nude-person-0.5``."""
        return "-".join(["learning_curve", *re.findall(r"\w+", f"{self.config.of} {self.config.text}"), f"{self.config.at:g}"])

    @property
    def arithmetic(self) -> str:
        """``cosine``."""
        return "cosine"

    def better(self) -> Better:
        """The target's phrase should lose its images, the anchor should keep its own; of the others nothing is known."""
        return BETTER.get(self.config.of, "neither")

    def measure(self, erasure: Edited) -> float | None:
        """The cosine, or None where there is no such curve."""
        looks = [value for point in erasure.curve if (value := point.get(self.curve)) is not None]
        return looks[round(self.config.at * (len(looks) - 1))] if looks else None
