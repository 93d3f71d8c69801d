"""Judges that a suite trains on its base's own images (SepME's style classifier): what the manifest says, and with which seeds.

A section of a suite::

    judges:
      styles:
        trunk: resnet18
        head: style
        classes: {van gogh: Van Gogh, picasso: Picasso, blank: ""}
        images: 200

Numbers of such a judge compare only with numbers of the same one, so the first characters of its checksum stand behind its
name in the protocol of every row: ``acc-1@.../styles~1a2b3c4d``.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from conceptbench.core.errors import UserInputError
from conceptbench.core.seeds import training_seed
from conceptbench.core.strict import Preset, Strict

PRESETS = MappingProxyType(
    {
        "default": Preset(note="The training images' seeds are disjoint from all evaluation seeds, and the layer is the one after the last epoch."),
        "sepme": Preset(
            options={"images": 1000, "seeds": "overlap", "keep": "best"},
            note=(
                "SepME sec. 4.1 as its code does it: 1000 images a class with repeated seeds that evaluation (and the erasure, which learns from "
                "the same images) uses, too, so that held-out and evaluation images may be training images; of 20 epochs the best one on the "
                "held-out part. Its accuracy is too good; the authors' own layer was not released."
            ),
        ),
    }
)
"""Preset -> options that it brings, and what must be known about it."""


class HeadTraining(Strict):
    """How a linear layer is trained on features. The defaults are SepME's.

    Attributes:
        epochs: passes over the training part.
        batch: images a step; the last batch of an epoch may be smaller.
        lr: the highest learning rate; it rises from 0 in the first half of all steps and falls back to 0 in the second.
        weight_decay: of SGD.
        held_out: the share of each class's images that is kept for testing.
        keep: the layer after the ``last`` epoch, or after the ``best`` one on the held-out part (the later of equal ones), whose
            accuracy there is then too good.
        seed: of the split, the first weights and the order of images.
    """

    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=30, ge=1)
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    held_out: float = Field(default=0.3, gt=0, lt=1)
    keep: Literal["last", "best"] = "last"
    seed: int = Field(default=0, ge=0)


class TrainedJudgeSpec(HeadTraining):
    """A judge of a suite's section ``judges``.

    Attributes:
        trunk: registered judge of role ``features``.
        head: name of the head, the part before the slash in concepts' labels.
        classes: label -> prompt of its training images; an empty prompt is the class of nothing in particular (SepME's blank).
        images: of each class.
        seeds: ``disjoint``: seeds that no evaluation image can have; ``overlap``: drawn with replacement from the evaluation's.
        seeds_of: for ``overlap``: the prompt set whose held-out images' seeds are the evaluation's, with all of its concepts. It is
            named here, and not taken from the tasks, so that a run of some tasks or with a limit asks the same judge as the whole.
        preset: a protocol of :data:`PRESETS`; what else is given wins over it.
    """

    trunk: str
    head: str = Field(pattern=r"^[^/\s]+$")
    classes: dict[str, str] = Field(min_length=2)
    images: int = Field(default=200, ge=4)
    seeds: Literal["disjoint", "overlap"] = "disjoint"
    seeds_of: str | None = None
    preset: str = "default"

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        name = given.get("preset", "default") if isinstance(given, dict) else None
        if not isinstance(name, str):
            return given
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
        return {**PRESETS[name].options, **given}

    @field_validator("classes")
    @classmethod
    def _labels(cls, classes: dict[str, str]) -> dict[str, str]:
        wrong = [label for label in classes if not label.strip()]
        if wrong:
            raise ValueError("a class has no name")
        return classes

    @model_validator(mode="after")
    def _seeds_have_a_source(self) -> TrainedJudgeSpec:
        if self.seeds == "overlap" and self.seeds_of is None:
            raise ValueError("seeds that overlap need `seeds_of`: the prompt set of the evaluation; or set `seeds: disjoint`")
        if self.seeds == "disjoint" and self.seeds_of is not None:
            raise ValueError("`seeds_of` is for `seeds: overlap`; leave it out")
        return self

    @property
    def note(self) -> str:
        """What must be known about numbers of this judge; empty for the default."""
        parts = [] if self.preset == "default" else [PRESETS[self.preset].note]
        if self.seeds == "overlap" and PRESETS[self.preset].options.get("seeds") != "overlap":
            parts.append("The training images have seeds of the evaluation.")
        return " ".join(parts)


def training_seeds(spec: TrainedJudgeSpec, name: str, label: str, evaluation: Sequence[int] = ()) -> list[int]:
    """The noise seeds of a class's training images.

    Args:
        spec: of the judge.
        name: of the judge in its suite.
        label: of the class.
        evaluation: the seeds of the evaluation images of ``spec.seeds_of``; needed for ``overlap``.

    Returns:
        ``spec.images`` seeds: all different, and odd as all training seeds are (:mod:`conceptbench.core.seeds`); or with
        ``overlap`` drawn with replacement from ``evaluation``.

    Raises:
        UserInputError: ``overlap`` without evaluation seeds.
    """
    if spec.seeds == "disjoint":
        return [training_seed("trained-judge", spec.seed, name, label, i) for i in range(spec.images)]
    if not evaluation:
        raise UserInputError(
            f"judge {name!r} trains on seeds of the evaluation, and there is none", "give `seeds_of` a prompt set with held-out rows, or set `seeds: disjoint`"
        )
    drawn = np.random.default_rng(training_seed("trained-judge", spec.seed, name, label)).integers(len(evaluation), size=spec.images)
    return [int(evaluation[i]) for i in drawn]
