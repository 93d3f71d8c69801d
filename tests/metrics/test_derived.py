from __future__ import annotations

import pytest

from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.protocols import presets_of
from conceptbench.core.results import Estimate
from conceptbench.core.statistics import wilson
from conceptbench.metrics.derived import Harmonic, Normalised, Sigma

NO_JUDGE = JudgeCard("", "features", "", "", "", "", {})
DIRECTION = {
    "acc": ("lower", "higher"),
    "esr": ("higher", "higher"),
    "psr": ("higher", "higher"),
    "lpips": ("higher", "lower"),
    "seconds": ("neither", "neither"),
}


def rate(hits, n, metric="acc", role="target", **changes):
    low, high = wilson(hits, n)
    better = DIRECTION[metric][role == "retained"]
    fields = {"value": hits / n, "low": low, "high": high, "kind": "wilson", "planned": n, "scored": n, "clusters": n, "unit": "rate", "better": better}
    return Estimate(**{**fields, **changes})


class Table:
    """Estimates by metric, role, concept and whether they are the base's."""

    def __init__(self, **own):
        self.own, self.base = own, {}

    def of(self, metric, role, concept="*", *, base=False):
        found = (self.base if base else self.own).get(f"{metric}_{role}_{concept}".replace("-1", "").replace("*", "all"))
        if found is None:
            raise UserInputError(f"no {metric}")
        return found

    def concepts(self, metric, role):
        start = f"{metric}_{role}_".replace("-1", "")
        return [name.removeprefix(start) for name in self.own if name.startswith(start) and not name.endswith("_all")]


def make(kind, **options):
    return kind(kind.Config(**options), NO_JUDGE)


def both(esr, psr):
    return Table(esr_target_all=esr, psr_retained_all=psr, esr_target_x=esr, psr_retained_y=psr)


@pytest.mark.parametrize(("erased", "kept", "published"), [(0.0117, 0.9517, 96.97), (0.0217, 0.8067, 88.42)])
def test_maces_published_means(erased, kept, published):
    """H_c of MACE as GLoCE's issue 2 gives it: percentages of two celebrity tables."""
    acc = Table(acc_target_all=rate(erased * 1e4, 1e4), acc_retained_all=rate(kept * 1e4, 1e4, role="retained"))
    acc.own.update(acc_target_x=acc.own["acc_target_all"], acc_retained_y=acc.own["acc_retained_all"])
    found = make(Harmonic, erased="acc-1", kept="acc-1").combine(acc, "*")
    assert 100 * found.value == pytest.approx(published, abs=0.01) and found.low < found.value < found.high
    esr = both(rate((1 - erased) * 1e4, 1e4, "esr"), rate(kept * 1e4, 1e4, "psr", "retained"))
    same = make(Harmonic).combine(esr, "*")
    assert (same.value, same.low, same.high) == pytest.approx((found.value, found.low, found.high))


def test_harmonic_counts_names_and_interval():
    harmonic = make(Harmonic, erased="esr-1", kept="psr-1")
    found = harmonic.combine(both(rate(90, 100, "esr", failed=2, planned=102), rate(40, 50, "psr", "retained", clusters=10)), "*")
    assert (found.planned, found.scored, found.failed, found.clusters) == (152, 150, 2, 110)
    assert (found.kind, found.unit, found.better, found.reason) == ("mover-reciprocal", "rate", "higher", "")
    assert (harmonic.id, harmonic.protocol, harmonic.row_role) == ("harmonic-esr-1-psr-1", "harmonic-esr-1-psr-1@pooled", "model")
    assert harmonic.sources == ("esr-1", "psr-1") and make(Harmonic, erased="acc-1", kept="acc-1").sources == ("acc-1",)


def test_harmonic_of_a_rate_of_zero_is_zero_with_a_width():
    found = make(Harmonic).combine(both(rate(0, 100, "esr"), rate(100, 100, "psr", "retained")), "*")
    assert found.value == 0 and found.low == 0 and found.high > 0.01


def test_what_harmonic_cannot_be_made_of():
    harmonic, kept = make(Harmonic), rate(40, 50, "psr", "retained")
    nothing = harmonic.combine(both(Estimate(value=None, reason="no image was scored", planned=7), kept), "*")
    assert nothing.value is None and nothing.reason == "esr-1 of targets has no value: no image was scored" and nothing.planned == 57
    one_prompt = harmonic.combine(both(rate(9, 10, "esr", low=None, high=None), kept), "*")
    assert one_prompt.value == pytest.approx(2 / (1 / 0.9 + 1 / 0.8)) and one_prompt.low is None and one_prompt.kind.startswith("none")
    for wrong in (rate(9, 10, "seconds"), rate(9, 10, "esr", value=30.0, low=None, high=None), rate(9, 10, "esr", unit="distance")):
        assert "esr-1 of targets: not a rate" in harmonic.combine(both(wrong, kept), "*").reason
    alone = harmonic.combine(Table(esr_target_all=rate(9, 10, "esr"), esr_target_x=rate(9, 10, "esr")), "*")
    assert alone.value is None and alone.reason == "the task has no retained concept with psr-1"
    with pytest.raises(UserInputError):
        harmonic.combine(Table(esr_target_x=kept, psr_retained_y=kept), "*")


SEPME = {"ESD": ((0.364, 0.252, 0.356), 0.897, 0.075), "FMN30": ((0.5, 0.552, 0.0), 0.878, 0.174), "ours": ((0.224, 0.0, 0.0), 0.958, -0.734)}
"""Table 2: ACC of the three erased styles, of the others, and the sum with its right sign."""


@pytest.mark.parametrize("method", SEPME)
def test_sepmes_second_table(method):
    targets, others, expected = SEPME[method]
    table = Table(**{f"acc_target_{i}": rate(round(250 * p), 250) for i, p in enumerate(targets)})
    shares = (others - 0.04, others + 0.04, others)
    table.own.update({f"acc_retained_{i}": rate(p * 1000, 1000, role="retained") for i, p in enumerate(shares)})
    found = make(Sigma, retained="mean").combine(table, "*")
    assert found.value == pytest.approx(expected, abs=6e-4) and found.low < found.value < found.high
    assert make(Sigma).combine(table, "*").value == pytest.approx(sum(targets) - 3 * others, abs=6e-4)
    assert (found.planned, found.clusters, found.unit, found.better, found.kind) == (3750, 3750, "sum", "lower", "mover-skew")


def test_sepmes_first_table():
    """G-CiRs: three erasures, ACC of one forgotten and two retained styles each; printed -5.54."""
    tables = [((0.228,), (1.0, 1.0)), ((0.052,), (0.908, 1.0)), ((0.0,), (0.908, 1.0))]
    total = 0.0
    for forgotten, kept in tables:
        table = Table(
            acc_target_x=rate(round(forgotten[0] * 250), 250), **{f"acc_retained_{i}": rate(p * 250, 250, role="retained") for i, p in enumerate(kept)}
        )
        total += make(Sigma).combine(table, "*").value
    assert total == pytest.approx(-5.536)


def test_sigma_of_other_metrics():
    lpips = make(Sigma, metric="lpips", better="higher")
    far, near = Estimate(value=0.4, low=0.3, high=0.5, planned=9, scored=9, clusters=3), Estimate(value=0.1, low=0.1, high=0.1, planned=9, scored=9, clusters=3)
    found = lpips.combine(Table(lpips_target_x=far, lpips_retained_y=near, lpips_retained_z=near), "*")
    assert (found.value, found.low, found.high, found.better, lpips.better()) == (*(pytest.approx(v) for v in (0.2, 0.1, 0.3)), "higher", "higher")
    mixed = make(Sigma, metric="acc-1", kept="psr-1")
    assert (mixed.id, mixed.sources, mixed.arithmetic) == ("sigma-acc-1-psr-1", ("acc-1", "psr-1"), "sum-minus-sum")
    table = Table(acc_target_x=rate(1, 10), psr_retained_y=rate(8, 10, "psr", "retained"), acc_retained_y=rate(1, 10, role="retained"))
    assert mixed.combine(table, "*").value == pytest.approx(0.1 - 0.8)
    assert (make(Sigma).id, make(Sigma, retained="mean").protocol) == ("sigma-acc-1", "sigma-acc-1@sum-minus-mean")


def test_sigma_needs_every_concept():
    table = Table(acc_target_x=rate(1, 10), acc_retained_y=Estimate(value=None, reason="no image was scored"))
    assert make(Sigma).combine(table, "*").reason == "y has no value: no image was scored"
    assert make(Sigma).combine(Table(acc_target_x=rate(1, 10)), "*").reason == "the task has no retained concept with acc-1"
    table = Table(acc_target_x=rate(1, 10), acc_retained_y=rate(1, 10, low=None, high=None))
    assert make(Sigma).combine(table, "*").low is None


def beside(own, base, role="target", metric="acc"):
    table = Table(**{f"{metric}_{role}_all": own, f"{metric}_{role}_x": own})
    table.base = {f"{metric}_{role}_all": base, f"{metric}_{role}_x": base}
    return table


def test_normalised_erasure_and_retention():
    erasure, retention = make(Normalised), make(Normalised, of="retained")
    found = erasure.combine(beside(rate(20, 100, planned=101, failed=1), rate(80, 100)), "*")
    kept = retention.combine(beside(rate(20, 100, role="retained"), rate(80, 100, role="retained"), "retained"), "x")
    assert found.value == pytest.approx(0.75) and kept.value == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((1 - kept.high, 1 - kept.low)) and found.low < 0.75 < found.high
    assert (found.planned, found.scored, found.failed, found.clusters, found.kind, found.reason) == (101, 100, 1, 100, "mover-r", "")
    assert (erasure.row_role, retention.row_role, erasure.better(), retention.better()) == ("target", "retained", "higher", "higher")
    assert erasure.protocol == "normalised-erasure-acc-1@one-minus-erased-over-base"
    assert retention.protocol == "normalised-retention-acc-1@erased-over-base"


def test_normalised_from_success_rates():
    """An ESR of .8 beside the base's .2 is an accuracy of .2 beside .8; a PSR is an accuracy."""
    found = make(Normalised, metric="esr-1").combine(beside(rate(80, 100, "esr"), rate(20, 100, "esr"), metric="esr"), "*")
    plain = make(Normalised).combine(beside(rate(20, 100), rate(80, 100)), "*")
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    table = beside(rate(20, 100, "psr", "retained"), rate(80, 100, "psr", "retained"), "retained", "psr")
    assert make(Normalised, metric="psr-1", of="retained").combine(table, "*").value == pytest.approx(0.25)


def test_a_base_that_does_not_show_the_concept():
    cassette = make(Normalised).combine(beside(rate(10, 500), rate(27, 500)), "x")
    assert cassette.value == pytest.approx(1 - 10 / 27) and cassette.reason == "the judge sees the concept in only 5.4 % of the base's images"
    assert make(Normalised).combine(beside(rate(10, 500), rate(250, 500)), "x").reason == ""
    never = make(Normalised).combine(beside(rate(3, 500), rate(0, 500)), "x")
    assert never.value is None and never.low is None and never.reason == "the judge sees the concept in none of the base's images"


def test_normalised_may_be_negative_and_is_zero_for_the_base():
    more = make(Normalised).combine(beside(rate(90, 100), rate(60, 100)), "*")
    assert more.value == pytest.approx(-0.5) and more.low < -0.5 < more.high < 0
    same = make(Normalised).combine(beside(rate(60, 100), rate(60, 100)), "*")
    assert same.value == 0 and same.low < 0 < same.high
    gone = make(Normalised).combine(beside(rate(0, 100), rate(60, 100)), "*")
    assert gone.value == 1 and gone.low < 1 and gone.high == 1


def test_limits_of_probabilities_may_lie_outside():
    """A bootstrap of a mean does not know that probabilities end at 0 and 1."""
    own, base = (rate(1, 100, unit="probability", value=v, low=low, high=high) for v, low, high in ((0.01, -0.005, 0.03), (0.98, 0.95, 1.01)))
    found = make(Normalised, metric="class_probability").combine(beside(own, base, metric="class_probability"), "*")
    assert found.value == pytest.approx(1 - 0.01 / 0.98) and found.high == 1 and found.low < found.value
    mean = make(Harmonic, erased="acc-1").combine(Table(acc_target_all=own, acc_target_x=own, psr_retained_all=base, psr_retained_x=base), "*")
    assert mean.low < mean.value < mean.high <= 1


def test_what_normalised_cannot_be_made_of():
    unscored = Estimate(value=None, reason="no image was scored")
    assert make(Normalised).combine(beside(rate(1, 10), unscored), "*").reason == "acc-1 of the base has no value: no image was scored"
    assert make(Normalised).combine(beside(unscored, rate(1, 10)), "*").value is None
    assert make(Normalised).combine(beside(rate(1, 10), rate(9, 10, low=None, high=None)), "*").kind.startswith("none")
    unsure = make(Normalised).combine(beside(rate(1, 10), rate(9, 10, low=0.0)), "*")
    assert unsure.value == pytest.approx(8 / 9) and unsure.low is None and unsure.kind == "none: the base's rate may be zero"
    assert make(Normalised).combine(Table(), "*").reason == "the task has no target concept with acc-1"


@pytest.mark.parametrize("kind", [Harmonic, Sigma, Normalised])
def test_presets_are_options_of_the_metric(kind):
    presets = presets_of(kind.name)
    assert next(iter(presets)) == "default"
    for preset in presets.values():
        assert preset.judge is None and preset.note and make(kind, **preset.options).sources
    assert kind.reference and kind.failure_modes and kind.role == ""
