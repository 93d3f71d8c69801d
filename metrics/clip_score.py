"""CLIP score: how well an image fits a text. CLIP accuracy: whether it fits one text better than another. From an image-text judge's cosines."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import field_validator

from conceptbench.core.metric import Asked, Better, Metric, Scored
from conceptbench.core.schemas import Concept, Role, Strict


def scaled(cosine: float, scale: str) -> float:
    """A cosine in [-1, 1] on one of the field's scales.

    ``x100``: 100 cos (torchmetrics; Hugging Face's ``logits_per_image``, whose learned scale is 100 for OpenAI's weights),
    ``cosine``: as it is (Forget-Me-Not), ``w2.5``: 2.5 max(cos, 0) (CLIPScore, Hessel et al. 2021, eq. 1; CA, SPM).
    """
    return {"x100": 100 * cosine, "cosine": cosine, "w2.5": 2.5 * max(cosine, 0.0)}[scale]


def around(prefix: str, suffix: str) -> str:
    """What a protocol says of the words put around a text: nothing, or ``-'A photo depicts {}'``."""
    return f"-'{prefix}{{}}{suffix}'" if prefix or suffix else ""


class CLIPScore(Metric):
    """Mean scaled cosine of an image's embedding with that of a text: the prompt, the subject alone, or the prompt without it.

    The mean of ``x100`` is torchmetrics' CLIPScore wherever that is positive: torchmetrics sets a negative *mean* to 0, and here it
    stays negative. ``w2.5`` sets each negative value to 0.
    """

    name, summary, role = "clip_score", "similarity of image and text (CLIP score)", "image-text"
    reference = "CLIPScore (Hessel et al., 2021, eq. 1); used by KPOP (tables 4 and 7), UCE, MACE, CA, SPM, RECE and Forget-Me-Not, each in its own way"
    failure_modes = (
        "Numbers of different judges cannot be converted into each other; those of different scales can: .308 of a cosine is 30.8 and .77.",
        "Images and texts that have nothing to do with each other have cosines far above 0: compare with the base's, not with 0.",
        "With the whole prompt, a target's image that lost its style but kept its content still scores high; see -subject and -content.",
        "Noise scores low, too: read a target's low score beside `nothing` or a measure of realism.",
        "A prompt beyond the judge's text length (77 tokens for OpenAI's) is cut but keeps its end token.",
        "torchmetrics drops the end token of such a prompt, Hugging Face's model then reads the start token, and its score is that of no prompt.",
        "KPOP's and MACE's +- is the spread over images, not an uncertainty.",
    )
    unit: ClassVar[str] = "score"
    is_rate: ClassVar[bool] = False

    class Config(Strict):
        """Options.

        Attributes:
            scale: see :func:`scaled`.
            text: ``prompt``; ``subject``: the concept's first phrase, e.g. the artist alone; ``content``: the prompt without its
                style or artist, where the prompt set says it; images whose prompt has none do not count.
            prefix, suffix: put before and after the text, as they stand.
        """

        scale: Literal["x100", "cosine", "w2.5"] = "x100"
        text: Literal["prompt", "subject", "content"] = "prompt"
        prefix: str = ""
        suffix: str = ""

    config: CLIPScore.Config

    @property
    def id(self) -> str:
        """``clip_score``, ``clip_score-subject`` or ``clip_score-content``."""
        return self.name if self.config.text == "prompt" else f"{self.name}-{self.config.text}"

    @property
    def arithmetic(self) -> str:
        """The scale, and the words around the text: ``w2.5-'A photo depicts {}'``."""
        return self.config.scale + around(self.config.prefix, self.config.suffix)

    def better(self, role: Role) -> Better:
        """Lower for what is erased, but not for the rest of its prompt, which should still be shown."""
        return "lower" if role == "target" and self.config.text != "content" else "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always."""
        return True

    def _text(self, asked: Asked) -> str:
        return {"prompt": asked.text, "subject": asked.concept.phrases[0], "content": asked.content}[self.config.text]

    def texts(self, asked: Asked) -> tuple[str, ...]:
        """One text; none for a prompt without content."""
        text = self._text(asked)
        return (f"{self.config.prefix}{text}{self.config.suffix}",) if self.config.text != "content" or text.strip() else ()

    def counts(self, image: Scored) -> bool:
        """Whether there is a text."""
        return bool(self.texts(image.asked))

    def value(self, image: Scored) -> float | None:
        """The scaled cosine; None, a failure, if it is not a number."""
        cosine = float(image.cosines[0])
        return scaled(cosine, self.config.scale) if math.isfinite(cosine) else None


class CLIPAccuracy(Metric):
    """Share of images that are nearer to the concept than to its anchor, or the share of the others.

    1 where cos(image, concept) > cos(image, anchor). Equal ones are not greater.
    """

    name, summary, role = "clip_accuracy", "share of images nearer to the concept's text than to its anchor's (CLIP accuracy)", "image-text"
    reference = "CLIP accuracy: Concept Ablation (Kumari et al., 2023); CLIP error rate, which is 1 minus that: SPM (Lyu et al., 2024)"
    failure_modes = (
        "The two texts decide all: a specific concept beside a general anchor (grumpy cat, cat) asks more than a concept beside the empty text.",
        "A concept without an anchor is compared with the empty text; rows over several concepts mix both unless the option `anchor` is set.",
        "Noise is nearer to some text, too, and may count as erased or not: read it beside `nothing`.",
        "CA and SPM set negative cosines to 0 first, so that two of them are a tie; with OpenAI's judges there are none.",
    )

    class Config(Strict):
        """Options.

        Attributes:
            template: around the concept's first phrase.
            anchor_template: around the anchor; None: ``template``, or for an empty anchor the empty text.
            anchor: of every concept; None: its own, which a task may set.
            of: ``accuracy``, or ``error``: 1 - accuracy.
        """

        template: str = "{}"
        anchor_template: str | None = None
        anchor: str | None = None
        of: Literal["accuracy", "error"] = "accuracy"

        @field_validator("template", "anchor_template")
        @classmethod
        def _one_slot(cls, template: str | None) -> str | None:
            if template is not None and template.count("{}") != 1:
                raise ValueError(f"template {template!r} needs exactly one {{}}")
            return template

    config: CLIPAccuracy.Config

    @property
    def id(self) -> str:
        """``clip_accuracy`` or ``clip_error``."""
        return f"clip_{self.config.of}"

    @property
    def arithmetic(self) -> str:
        """The two texts: ``'A photo depicts {}'>'A photo depicts ANCHOR'``, with ``ANCHOR`` for the concept's own."""
        own = self._anchor_text("ANCHOR" if self.config.anchor is None else self.config.anchor)
        return f"'{self.config.template}'{'>' if self.config.of == 'accuracy' else '<='}'{own}'"

    def _anchor_text(self, anchor: str) -> str:
        template = self.config.anchor_template or (self.config.template if anchor else "{}")
        return template.replace("{}", anchor)

    def better(self, role: Role) -> Better:
        """Accuracy: lower for what is erased. Error: the other way."""
        return "lower" if (role == "target") == (self.config.of == "accuracy") else "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always; an anchor may be empty."""
        return True

    def texts(self, asked: Asked) -> tuple[str, ...]:
        """The concept's and the anchor's."""
        anchor = asked.concept.anchor if self.config.anchor is None else self.config.anchor
        return (self.config.template.replace("{}", asked.concept.phrases[0]), self._anchor_text(anchor))

    def value(self, image: Scored) -> float | None:
        """0 or 1; None, a failure, if a cosine is not a number."""
        if not np.isfinite(image.cosines).all():
            return None
        nearer = bool(image.cosines[0] > image.cosines[1])
        return float(nearer == (self.config.of == "accuracy"))
