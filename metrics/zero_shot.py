"""Zero-shot classification by an image-text judge: which of several candidate texts an image is nearest to.

Every candidate stands in every template, and its score is the mean of the image's cosines over the templates. CLIP's prompt
ensembling takes the cosine with the mean of the text embeddings instead, normalised: the same up to one factor a candidate, which is
nearly the same for all where the templates are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from conceptbench.core.clusters import Z95, Clustered, effective_number
from conceptbench.core.files import key_of
from conceptbench.core.metric import Asked, Better, Metric, OfImages, Sample, Scored, SetMetric
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept, Role, Strict

Floats = NDArray[np.float64]


def margin(scores: Floats, own: Sequence[int]) -> float:
    """The best own candidate's score minus the best other one's. scores: (C,); own: indices, neither none nor all."""
    mine = np.isin(np.arange(len(scores)), own)
    return float(scores[mine].max() - scores[~mine].max())


def probability(scores: Floats, own: Sequence[int], scale: float = 100.0) -> float:
    """The share of the own candidates in softmax(scale · scores). scores: (C,) cosines."""
    weights = np.exp(scale * (scores - scores.max()))
    return float(weights[list(own)].sum() / weights.sum())


def placements(positives: Floats, negatives: Floats) -> Floats:
    """For each positive (P,) the share of the negatives (N,), at least one, that are below it; equal ones count one half.

    Their mean is the area under the ROC curve: the Mann-Whitney statistic over P · N.
    """
    ordered = np.sort(negatives)
    below, up_to = np.searchsorted(ordered, positives, "left"), np.searchsorted(ordered, positives, "right")
    found: Floats = (below + up_to) / (2 * len(negatives))
    return found


def auc_limits(auc: float, positives: float, negatives: float) -> tuple[float, float]:
    """The 95 % score interval of an AUC (Newcombe 2006, part 2, method 5): never a width of zero.

    It holds the areas that are at most 1.96 standard errors away, with Hanley and McNeil's error (1982) of the area in question, in which
    both numbers of images are replaced by their mean.

    Args:
        auc: the area found, in [0, 1].
        positives: how many independent images the one side has, at least 1; may be fractional.
        negatives: the same of the other side.
    """

    def lower(area: float) -> float:
        low, high = 0.0, area
        for _ in range(60):
            middle = (low + high) / 2
            rest = 1 - middle
            variance = middle * rest * (1 + ((positives + negatives) / 2 - 1) * (rest / (1 + rest) + middle / (1 + middle))) / (positives * negatives)
            low, high = (middle, high) if (area - middle) ** 2 > Z95**2 * variance else (low, middle)
        return low

    return lower(auc), 1 - lower(1 - auc)


class Candidates(Strict):
    """Options of zero-shot metrics.

    Attributes:
        candidates: texts; a concept is one if its name or one of its phrases is. Several may be one concept's.
        templates: around each candidate.
        neutral: one more candidate that is no concept, as it stands, e.g. ``a photo``: what an erased style may leave.
    """

    candidates: tuple[str, ...]
    templates: tuple[str, ...] = Field(default=("{}",), min_length=1)
    neutral: str = ""

    @model_validator(mode="after")
    def _distinct(self) -> Candidates:
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r} needs exactly one {{}}")
        if len(self.candidates) + bool(self.neutral) < 2:
            raise ValueError("a choice needs at least two candidates, or one and a neutral text")
        if not all(c.strip() for c in self.candidates):
            raise ValueError("a candidate is empty; what stands for no concept is the option `neutral`")
        seen: set[str] = set()
        for text in self.texts():
            plain = " ".join(text.lower().split())  # what CLIP's tokenizer makes of it
            if plain in seen:
                raise ValueError(f"two candidates give the same text {text!r}")
            seen.add(plain)
        return self

    def texts(self) -> tuple[str, ...]:
        """Every candidate in every template, candidate by candidate, then the neutral text."""
        found = tuple(template.replace("{}", c) for c in self.candidates for template in self.templates)
        return (*found, self.neutral) if self.neutral else found

    def scores(self, cosines: NDArray[np.floating]) -> Floats:
        """(C,) or (C + 1,): the candidates' mean cosines over the templates, then the neutral text's.

        Args:
            cosines: (T,) of :meth:`texts`.
        """
        n = len(self.candidates) * len(self.templates)
        exact = np.asarray(cosines, np.float64)
        means: Floats = np.concatenate([exact[:n].reshape(len(self.candidates), -1).mean(1), exact[n:]])
        return means

    def own(self, concept: Concept) -> list[int]:
        """Which candidates are the concept's."""
        return [i for i, c in enumerate(self.candidates) if c in (concept.name, *concept.phrases)]

    @property
    def fingerprint(self) -> str:
        """``9+1way-1f0c53aa``: how many candidates (and a neutral one), and a hash of all texts, whatever their order."""
        ways = f"{len(self.candidates)}{'+1' if self.neutral else ''}way"
        return f"{ways}-{key_of({'candidates': sorted(self.candidates), 'templates': sorted(self.templates), 'neutral': self.neutral})[:8]}"


class _ZeroShot(OfImages):
    """What the metrics share: who is a candidate, and the direction."""

    role: ClassVar[str] = "image-text"

    class Config(Candidates):
        """Options."""

    config: Candidates

    @property
    def id(self) -> str:
        """The name."""
        return self.name

    def better(self, role: Role) -> Better:
        """Lower for what is erased."""
        return "lower" if role == "target" else "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """If the concept is a candidate, and not all candidates are the concept's."""
        own = self.config.own(concept)
        return bool(own) and len(own) < len(self.config.candidates) + bool(self.config.neutral)

    def texts(self, asked: Asked) -> tuple[str, ...]:
        """All candidates, for every image."""
        return self.config.texts()

    def scores(self, image: Scored) -> Floats | None:
        """The candidates' scores; None if a cosine is not a number."""
        scores = self.config.scores(image.cosines)
        return scores if np.isfinite(scores).all() else None


SEEN = (
    "A judge that does not know a style cannot see it, as CLIP does not know every artist (KPOP, table 7): look at the base's row first.",
    "It depends on the candidates and templates, which the protocol holds as a hash; without a neutral candidate even noise must be one of the styles.",
)


class ZeroShotAccuracy(_ZeroShot, Metric):
    """1 where a candidate of the concept is nearer to the image than all others. Equal is not nearer."""

    name, summary = "zero_shot", "share of images whose nearest candidate text is their concept (zero-shot accuracy)"
    reference = "Radford et al. (2021), section 3.1; proposed for erased styles by KPOP (section 5.6.6); UCE classifies faces so (CLIP_classify.py)"
    failure_modes = SEEN

    @property
    def arithmetic(self) -> str:
        """``top1-of-9+1way-1f0c53aa``."""
        return f"top1-of-{self.config.fingerprint}"

    def value(self, image: Scored) -> float | None:
        """0 or 1."""
        scores = self.scores(image)
        return None if scores is None else float(margin(scores, self.config.own(image.concept)) > 0)


class ZeroShotMargin(_ZeroShot, Metric):
    """100 times the cosine of the concept's best candidate minus that of the best other one: above 0 where ``zero_shot`` is 1."""

    name, summary = "zero_shot_margin", "how much nearer the concept's text is than the best other candidate (x100)"
    reference = "the margin of the classification of Radford et al. (2021), section 3.1"
    failure_modes = (*SEEN, "Cosines of different judges have different spreads: compare margins of one judge only.")
    unit: ClassVar[str] = "score"
    is_rate: ClassVar[bool] = False

    @property
    def arithmetic(self) -> str:
        """``x100-of-9+1way-1f0c53aa``."""
        return f"x100-of-{self.config.fingerprint}"

    def value(self, image: Scored) -> float | None:
        """In [-200, 200]."""
        scores = self.scores(image)
        return None if scores is None else 100 * margin(scores, self.config.own(image.concept))


class ZeroShotProbability(_ZeroShot, Metric):
    """Mean probability of the concept under softmax(scale · cosines). MACE calls it accuracy, which it is not."""

    name, summary = "zero_shot_prob", "mean zero-shot probability of the concept among the candidates"
    reference = "MACE (Lu et al., 2024), metrics/evaluate_clip_accuracy.py: ten CIFAR-10 classes, scale 100"
    failure_modes = (*SEEN, "A mean probability is no share of images: many unsure images and few sure ones may give the same.")
    unit: ClassVar[str] = "probability"
    is_rate: ClassVar[bool] = False

    class Config(Candidates):
        """Options; ``scale`` is that of the softmax, 100 for OpenAI's models."""

        scale: float = Field(default=100.0, gt=0, allow_inf_nan=False)

    config: ZeroShotProbability.Config

    @property
    def arithmetic(self) -> str:
        """``softmax100-of-9+1way-1f0c53aa``."""
        return f"softmax{self.config.scale:g}-of-{self.config.fingerprint}"

    def value(self, image: Scored) -> float | None:
        """In [0, 1]."""
        scores = self.scores(image)
        return None if scores is None else probability(scores, self.config.own(image.concept), self.config.scale)


class ZeroShotAUC(_ZeroShot, SetMetric):
    """How well the concept's score tells its images from the model's images of the other candidates in the task: the area under the ROC curve.

    1: every image of the concept scores above every other image; 0.5: the score knows nothing. The interval is :func:`auc_limits` on
    the effective numbers of images of both sides, found from their placements as those of rates are from successes.
    """

    name, summary = "zero_shot_auc", "how well the concept's zero-shot score tells its images from those of the task's other candidates (AUC)"
    reference = "Hanley and McNeil (1982); interval: Newcombe (2006), Statistics in Medicine 25, 559-573, method 5"
    failure_modes = (
        "With `margin` an erased style may stay near 1: an image without style is less like the others than their own are. See `cosine`.",
        "The other images are the erased model's own: where it damages them, the area of an untouched concept changes, too.",
        "Only images whose concept is a candidate are compared; a task with one candidate has no area.",
        "An area of 0.5 says that the judge cannot tell the images apart, and not that they are good: noise gives it, too.",
    )
    unit: ClassVar[str] = "auc"
    each_concept: ClassVar[bool] = True

    class Config(Candidates):
        """Options; ``score``: the ``cosine`` of the concept's best candidate alone, or its ``margin`` over the best other one."""

        score: Literal["cosine", "margin"] = "cosine"

    config: ZeroShotAUC.Config

    @property
    def arithmetic(self) -> str:
        """``cosine-of-9+1way-1f0c53aa``."""
        return f"{self.config.score}-of-{self.config.fingerprint}"

    @property
    def beside(self) -> str:
        """The model's images of the task's other concepts."""
        return "others"

    def reading(self, image: Scored, of: Concept | None) -> Floats:
        """(1,): the score of the concept that the row is about; NaN where a cosine is not a number."""
        assert of is not None, "an area is about one concept"
        scores, own = self.scores(image), self.config.own(of)
        if scores is None:
            return np.array([np.nan])
        return np.array([margin(scores, own) if self.config.score == "margin" else scores[own].max()])

    def estimate(self, *, generated: Sample, real: Sample) -> Estimate:
        """The area with its interval; no value without images of both sides, no interval with one prompt on a side."""
        mine, others = _usable(generated), _usable(real)
        counts = {"scored": len(mine), "failed": len(generated) - len(mine), "clusters": len(set(mine.clusters))}
        if not len(mine) or not len(others):
            missing = "the concept" if not len(mine) else "another candidate"
            return Estimate(value=None, reason=f"no image of {missing} was scored", unit=self.unit, **counts)
        above, below = placements(mine.values, others.values), placements(-others.values, -mine.values)
        area = math.fsum(above) / len(above)
        if min(len(set(mine.clusters)), len(set(others.clusters))) < 2:
            return Estimate(value=area, kind="none: one prompt only", unit=self.unit, **counts)
        sizes = [float(effective_number(Clustered.of(p, s.clusters))) for p, s in ((above, mine), (below, others))]
        low, high = auc_limits(area, sizes[0], sizes[1])
        one_each = all(len(set(s.clusters)) == len(s) for s in (mine, others))
        return Estimate(value=area, low=low, high=high, kind="newcombe" if one_each else "newcombe-clustered", unit=self.unit, **counts)


def _usable(sample: Sample) -> Sample:
    """The images whose reading is a number; their values as (N,)."""
    values = np.asarray(sample.values, np.float64)[:, 0]
    good = np.isfinite(values)
    return Sample(values[good], [c for c, g in zip(sample.clusters, good, strict=True) if g])
