"""Quantities made of other metrics' estimates: harmonic mean, SepME's sum, rates beside the base's.

They have intervals, too: :mod:`conceptbench.core.combining`. All but the ratios are of estimates on different prompts, which are
independent; a ratio is of two models on the same prompts and noise, and its interval is conservative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from conceptbench.core.combining import Bounded, harmonic, ratio, sum_of
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Better
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Role, Strict
from conceptbench.core.whole_metric import DerivedMetric, Estimates

SEEN_BY_THE_BASE = 0.5
"""Below this share of the base's images the concept cannot be said to be there to erase."""


def limits(estimate: Estimate) -> Bounded:
    """The value with its limits; where it has none, the value itself on either side."""
    assert estimate.value is not None
    if estimate.low is None or estimate.high is None:
        return Bounded(estimate.value, estimate.value, estimate.value)
    return Bounded(estimate.value, min(estimate.low, estimate.value), max(estimate.high, estimate.value))


def seen(estimate: Estimate, role: Role) -> Bounded:
    """The share of images in which the concept is seen, from any rate.

    An ESR is a share of images in which it is *not* seen, and says so by its good direction: for a target higher.
    """
    unseen = estimate.better == ("higher" if role == "target" else "lower")
    x = limits(estimate)
    x = Bounded(x.value, max(0.0, x.low), min(1.0, x.high))  # a bootstrap's limits of a mean probability may lie outside
    return x.complement() if unseen else x


def interval_kind(method: str, sources: Sequence[Estimate]) -> str:
    """The method's name, or why there is no interval: a source has none."""
    return "none: a source has no interval" if any(s.low is None or s.high is None for s in sources) else method


def combined(found: Bounded | None, counted: Sequence[Estimate], kind: str, *, better: Better, unit: str, reason: str = "") -> Estimate:
    """An estimate of other estimates.

    Args:
        found: value and limits; None if it is undefined.
        counted: estimates of different images, whose numbers of images and prompts add up.
        kind: of the interval (:func:`interval_kind`).
        better: the good direction.
        unit: of the value.
        reason: why there is no value, or what must be known about it.
    """
    counts: dict[str, Any] = {field: sum(getattr(e, field) for e in counted) for field in ("planned", "scored", "failed", "clusters")}
    counts.update(better=better, unit=unit, reason=reason)
    if found is None:
        return Estimate(value=None, **counts)
    if kind.startswith("none"):
        return Estimate(value=found.value, kind=kind, **counts)
    return Estimate(value=found.value, low=found.low, high=found.high, kind=kind, **counts)


def without_value(named: Sequence[tuple[str, Estimate]]) -> str:
    """Which sources have no value, and why; empty if all have one."""
    return "; ".join(f"{name} has no value: {e.reason or 'no reason given'}" for name, e in named if e.value is None)


def nobody(estimates: Estimates, *asked: tuple[str, Role]) -> str:
    """Which of the metrics has no concept of its role in the task; empty if all have."""
    return "; ".join(f"the task has no {role} concept with {metric}" for metric, role in asked if not estimates.concepts(metric, role))


def no_rate(named: Sequence[tuple[str, Estimate]]) -> str:
    """Which sources are no rates with a good direction, and so cannot be turned into success rates; empty if all can."""
    wrong = [name for name, e in named if e.value is not None and (not 0 <= e.value <= 1 or e.unit not in ("rate", "probability") or e.better == "neither")]
    return f"{', '.join(wrong)}: not a rate with a good direction" if wrong else ""


class Harmonic(DerivedMetric):
    """The harmonic mean of an erasing and a keeping success rate, both over all images of their role.

    MACE's H_c = 2 / (1 / (1 - ACC_e) + 1 / ACC_s) is this with the accuracy of its judge: a metric whose good direction for
    targets is *lower* (an accuracy, an exposure rate) enters as one minus itself.
    """

    name, summary = "harmonic", "harmonic mean of an erasing and a keeping success rate (MACE's H_c)"
    reference = "MACE (Lu et al. 2024, Mass Concept Erasure in Diffusion Models), sec. 4: H_c; GLoCE reports it, too"
    failure_modes = ("it hides which of the two is low: give both beside it", "noise for every prompt of a target is a perfect erasure here")

    class Config(Strict):
        """Options: ids of a rate over the targets and of one over the retained concepts."""

        erased: str = "esr-1"
        kept: str = "psr-1"

    config: Harmonic.Config

    @property
    def id(self) -> str:
        """``harmonic-esr-1-psr-1``."""
        return f"harmonic-{self.config.erased}-{self.config.kept}"

    @property
    def arithmetic(self) -> str:
        """``pooled``: of rates over all images of a role, not of means over concepts."""
        return "pooled"

    @property
    def sources(self) -> tuple[str, ...]:
        """The two rates."""
        return tuple(dict.fromkeys((self.config.erased, self.config.kept)))

    def better(self) -> Better:
        """Higher."""
        return "higher"

    def combine(self, estimates: Estimates, concept: str) -> Estimate:
        """From 0 to 1; 0 if one of the rates is 0. Interval: MOVER on the reciprocals."""
        nowhere = nobody(estimates, (self.config.erased, "target"), (self.config.kept, "retained"))
        if nowhere:
            return combined(None, (), "", better="higher", unit=self.unit, reason=nowhere)
        erased, kept = estimates.of(self.config.erased, "target", concept), estimates.of(self.config.kept, "retained", concept)
        named = [(f"{self.config.erased} of targets", erased), (f"{self.config.kept} of retained concepts", kept)]
        reason = without_value(named) or no_rate(named)
        found = None if reason else harmonic(seen(erased, "target").complement(), seen(kept, "retained"))
        kind = interval_kind("mover-reciprocal", (erased, kept))
        return combined(found, (erased, kept), kind, better="higher", unit=self.unit, reason=reason)


class Sigma(DerivedMetric):
    """SepME's last line: the sum of a metric over the forgotten concepts minus its sum over the retained ones.

    For an accuracy lower is better, for LPIPS higher. In SepME's Table 2 the retained concepts enter as one mean ("Others");
    its Table 1 adds this value up over three erasures of one concept each.
    """

    name, summary = "sigma", "sum of a metric over forgotten concepts minus that over retained ones (SepME)"
    reference = "SepME (Zhao et al. 2024), Tables 1 and 2; the signs of two published values are wrong (Table 2: FMN30 is +.174, ESD +.075)"
    failure_modes = ("its range depends on the numbers of concepts: only the same tasks can be compared", "erasing and keeping can make up for each other")

    class Config(Strict):
        """Options.

        Attributes:
            metric: id of a metric over concepts of both roles.
            kept: id of the metric over retained concepts; empty: the same.
            retained: whether the retained concepts enter as a sum, or as one mean.
            better: ``lower`` for an accuracy, ``higher`` for LPIPS.
        """

        metric: str = "acc-1"
        kept: str = ""
        retained: Literal["sum", "mean"] = "sum"
        better: Literal["lower", "higher"] = "lower"

    config: Sigma.Config

    def __init__(self, config: Sigma.Config, judge: JudgeCard) -> None:
        super().__init__(config, judge)
        self.unit = "sum"

    @property
    def _kept(self) -> str:
        return self.config.kept or self.config.metric

    @property
    def id(self) -> str:
        """``sigma-acc-1``; with another metric for what is kept ``sigma-acc-1-psr-1``."""
        return "-".join(("sigma", *self.sources))

    @property
    def arithmetic(self) -> str:
        """``sum-minus-sum`` or ``sum-minus-mean``."""
        return f"sum-minus-{self.config.retained}"

    @property
    def sources(self) -> tuple[str, ...]:
        """The metric or the two."""
        return tuple(dict.fromkeys((self.config.metric, self._kept)))

    def better(self) -> Better:
        """As the options say."""
        return self.config.better

    def combine(self, estimates: Estimates, concept: str) -> Estimate:
        """The sum, with an interval that takes the concepts' estimates to be independent."""
        forgotten = [(c, estimates.of(self.config.metric, "target", c)) for c in estimates.concepts(self.config.metric, "target")]
        kept = [(c, estimates.of(self._kept, "retained", c)) for c in estimates.concepts(self._kept, "retained")]
        weights = [1.0] * len(forgotten) + [-1.0 / (len(kept) if self.config.retained == "mean" else 1)] * len(kept)
        reason = nobody(estimates, (self.config.metric, "target"), (self._kept, "retained")) or without_value([*forgotten, *kept])
        sources = [e for _, e in (*forgotten, *kept)]
        found = None if reason else sum_of(weights, [limits(e) for e in sources])
        return combined(found, sources, interval_kind("mover-skew", sources), better=self.config.better, unit=self.unit, reason=reason)


class Normalised(DerivedMetric):
    """A rate beside the base's: how much of what the base shows was erased, or is still there.

    Targets: (base - erased) / base, *normalised erasure*: 1 if nothing is left, 0 if nothing changed, negative if the concept is seen
    more often. Retained concepts: erased / base. Any rate serves: an ESR counts as one minus itself.
    """

    name, summary = "normalised", "the share of what the base shows that was erased, or that is still there"
    reference = "of this harness; the base's own rates are in no paper's ESR, and decide it (KPOP's splits: ESR-1 from 6.3 to 37.8 % for Stable Diffusion)"
    failure_modes = (
        "a base that hardly shows the concept makes the ratio noise: the row says so below one half",
        "the interval takes the two models to be independent, and is too wide, because they share prompts and noise",
    )

    class Config(Strict):
        """Options: metric, id of a rate; of, the role."""

        metric: str = "acc-1"
        of: Role = "target"

    config: Normalised.Config

    def __init__(self, config: Normalised.Config, judge: JudgeCard) -> None:
        super().__init__(config, judge)
        self.what = "erasure" if config.of == "target" else "retention"

    @property
    def id(self) -> str:
        """``normalised-erasure-acc-1`` or ``normalised-retention-acc-1``."""
        return f"normalised-{self.what}-{self.config.metric}"

    @property
    def arithmetic(self) -> str:
        """``one-minus-erased-over-base`` or ``erased-over-base``: a ratio of rates over images, not a mean of ratios."""
        return "one-minus-erased-over-base" if self.config.of == "target" else "erased-over-base"

    @property
    def sources(self) -> tuple[str, ...]:
        """The rate."""
        return (self.config.metric,)

    @property
    def row_role(self) -> Literal["target", "retained", "model"]:
        """The role that the options name."""
        return self.config.of

    def better(self) -> Better:
        """Higher, for both."""
        return "higher"

    def combine(self, estimates: Estimates, concept: str) -> Estimate:
        """The ratio. Interval: MOVER-R, as if the two models were independent, which is conservative."""
        role, metric = self.config.of, self.config.metric
        nowhere = nobody(estimates, (metric, role))
        if nowhere:
            return combined(None, (), "", better="higher", unit=self.unit, reason=nowhere)
        own, base = estimates.of(metric, role, concept), estimates.of(metric, role, concept, base=True)
        named = [(metric, own), (f"{metric} of the base", base)]
        reason = without_value(named) or no_rate(named)
        shown = None if reason else seen(base, role)
        if shown is not None and shown.value == 0:
            reason, shown = "the judge sees the concept in none of the base's images", None
        found, kind = None, interval_kind("mover-r", (own, base))
        if shown is not None:
            rest = ratio(seen(own, role), shown)
            found = rest.complement() if role == "target" else rest
            if math.isinf(rest.high):
                kind = "none: the base's rate may be zero"
            if shown.value < SEEN_BY_THE_BASE:
                reason = f"the judge sees the concept in only {100 * shown.value:.3g} % of the base's images"
        return combined(found, (own,), kind, better="higher", unit=self.unit, reason=reason)
