"""A metric of every kind, as small as can be, and suites with them."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import yaml
from world import write_suite

from conceptbench.core.metric import Metric, SetMetric
from conceptbench.core.registry import METRICS, REFERENCES
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Strict
from conceptbench.core.whole_metric import DerivedMetric
from conceptbench.models.probe import Probe, Probed


class Brightness(Metric):
    """The mean of the judge's first class; dark images do not count."""

    name, summary, role, unit, is_rate = "brightness", "", "classifier", "score", False
    id, arithmetic = "brightness", "mean"

    class Config(Strict):
        least: float = 0.0
        total: bool = False

    def __init__(self, config, judge):
        super().__init__(config, judge)
        self.total = config.total

    def better(self, role):
        return "neither"

    def applies(self, concept, role):
        return True

    def counts(self, image):
        return bool(image.said["subject"][0] > self.config.least)

    def value(self, image):
        return float(image.said["subject"][0])


class FarFrom(SetMetric):
    """How far the mean colour of a set is from the mean colour of its reference."""

    name, summary, role, unit = "far", "", "classifier", "distance"
    each_concept = True

    class Config(Strict):
        beside: str = "base"
        n: int | None = None

    @property
    def id(self):
        return f"far-{self.config.beside}"

    arithmetic = "mean"

    @property
    def beside(self):
        return self.config.beside

    @property
    def reference_size(self):
        return self.config.n

    def better(self, role):
        return "lower"

    def applies(self, concept, role):
        return True

    def reading(self, image, of):
        return image.said["subject"][:3]

    def estimate(self, *, generated, real):
        if not len(generated) or not len(real):
            return Estimate(value=None, reason="no images")
        return Estimate(value=float(np.linalg.norm(generated.values.mean(0) - real.values.mean(0))), kind="none: a test")

    def per_image(self, *, generated, real):
        return np.linalg.norm(generated.values - real.values.mean(0), axis=1)


class WeightProbe(Probe):
    """The sum of one weight of the model, and how often it was measured."""

    name, summary, spread_kind = "weight_probe", "", "draws"
    parts: ClassVar = {"twice": "weight"}
    id, arithmetic = "weight_probe", "sum"
    measured: ClassVar[list] = []

    def better(self, role):
        return "lower"

    def applies(self, concept, role):
        return concept.name != "gh"

    def prepare(self, base, request):
        return {"images": request.images(request.concept, 2), "sum": np.array([self._sum(base)])}

    def _sum(self, base):
        return float(sum(p.abs().sum() for n, p in base.unet.named_parameters() if "attn2.to_k" in n))

    def measure(self, base, request, prepared):
        assert prepared["images"].shape[0] == 2
        WeightProbe.measured.append(request.concept.name)
        request.progress(1)
        value = self._sum(base) - prepared["sum"][0]
        return Probed({"": np.array([value, value + 1]), "twice": np.array([2 * value, math.nan])}, ["0", "1"], {"map": np.ones((2, 2))})


class Gap(DerivedMetric):
    """ESR minus PSR."""

    name, summary = "gap", ""
    id, arithmetic = "gap", "difference"

    class Config(Strict):
        one: str = "esr-1"

    @property
    def sources(self):
        return (self.config.one, "psr-1")

    def better(self):
        return "higher"

    def combine(self, estimates, concept):
        one, other = estimates.of(self.config.one, "target"), estimates.of("psr-1", "retained")
        return Estimate(
            value=None if one.value is None else one.value - other.value, planned=one.planned, scored=one.scored, failed=one.failed, kind="none: a test"
        )


def grey(concepts, n, seed):
    return np.full((n, 8, 8, 3), 128, np.uint8)


for plugin in (Brightness, FarFrom, WeightProbe, Gap):
    METRICS.add(plugin.name, plugin)
REFERENCES.add("grey", grey)


def suite_with(tmp_path, *metrics, **changes):
    path = write_suite(tmp_path / "suite", **changes)
    suite = yaml.safe_load(path.read_text())
    suite["metrics"] += metrics
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    return path


def by_place(rows):
    return {(r.task, r.eraser, r.metric, r.role, r.concept): r for r in rows}
