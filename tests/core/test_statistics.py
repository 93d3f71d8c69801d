from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from clustered import PAIRS, PROMPTS, flat, limits, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from conceptbench.core.errors import PluginError
from conceptbench.core.statistics import holm, mcnemar_exact, mean_interval, paired_difference, rate_interval, tango, wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(case):
    k, n = case
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-10)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0), (math.nan, 3)])
def test_wilson_refuses_nonsense(k, n):
    with pytest.raises(ValueError, match="wilson needs"):
        wilson(k, n)


def brute_force_tango(b, c, n):
    """All differences whose score, with the likelihood maximised on a grid of the nuisance parameter, is within 1.96."""
    inside = []
    for d in np.linspace(-0.9995, 0.9995, 2001):
        q = np.linspace(max(0, -d) + 1e-9, (1 - d) / 2, 8001)
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = b * np.log(q + d) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - d)
        likelihood = np.where(np.isnan(likelihood), -np.inf, likelihood)
        best = q[likelihood.argmax()]
        variance = n * (2 * best + d - d * d)
        if variance > 0 and abs(b - c - n * d) / np.sqrt(variance) <= 1.959964:
            inside.append(d)
    return min(inside), max(inside)


@pytest.mark.parametrize(("b", "c", "n"), [(9, 3, 40), (1, 12, 24), (5, 5, 20), (20, 2, 24)])
def test_tango_equals_a_grid_search(b, c, n):
    assert tango(b, c, n) == pytest.approx(brute_force_tango(b, c, n), abs=2e-3)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))).filter(lambda t: t[0] + t[1] <= t[2]))
@settings(max_examples=200)
def test_tango_holds_the_estimate_mirrors_and_has_a_width(case):
    b, c, n = case
    low, high = tango(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1 and high - low > 1e-3
    assert (-high, -low) == pytest.approx(tango(c, b, n), abs=1e-9)


def test_tango_of_identical_outcomes_is_the_known_closed_form():
    n = 24  # b = c = 0: the limits are +- z^2 / (n + z^2)
    bound = 1.959964**2 / (n + 1.959964**2)
    assert tango(0, 0, n) == pytest.approx((-bound, bound), abs=1e-6)


def test_one_image_a_prompt_is_wilson():
    found = rate_interval([1, 0, 1, 1], ["a", "b", "c", "d"])
    assert found.kind == "wilson" and (found.low, found.high) == pytest.approx(wilson(3, 4))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_unanimous_images_never_have_a_width_of_zero(rate):
    found = rate_interval([rate] * 15, [i // 5 for i in range(15)])
    assert found.kind == "wilson-clustered" and limits(found) == pytest.approx(wilson(3 * rate, 3))


@given(PROMPTS, st.integers(0, 5))
def test_rate_intervals_hold_the_rate_stay_in_bounds_mirror_and_ignore_order_and_names(prompts, seed):
    values, labels = flat(prompts)
    low, high = limits(rate_interval(values, labels))
    assert 0 <= low <= np.mean(values) <= high <= 1 and high - low > 1e-2
    mirrored = rate_interval([1 - v for v in values], labels)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-12)
    assert limits(rate_interval(*shuffled(values, labels, seed))) == (low, high)


@given(PAIRS, st.integers(0, 5))
def test_paired_rates_hold_the_difference_stay_in_bounds_mirror_and_ignore_order_and_names(prompts, seed):
    pairs, labels = flat(prompts)
    first, second = map(np.array, zip(*pairs, strict=True))
    value, found = paired_difference(first, second, labels, rate=True)
    low, high = limits(found)
    assert -1 <= low <= value + 1e-12 and value - 1e-12 <= high <= 1 and high - low > 1e-2 and value == pytest.approx(np.mean(first - second))
    for other in (paired_difference(second, first, labels, rate=True), paired_difference(1 - first, 1 - second, labels, rate=True)):
        assert other[0] == -value and (-other[1].high, -other[1].low) == pytest.approx((low, high), abs=1e-9)
    again, names = shuffled(pairs, labels, seed)
    _, moved = paired_difference(*zip(*again, strict=True), names, rate=True)
    assert limits(moved) == (low, high)


def test_prompts_alike_within_count_as_one_image_each():
    """Five copies of one image say no more than one: at least as wide as one image a prompt, and not much wider."""
    one = np.random.default_rng(0).integers(0, 2, 60)
    single, five = rate_interval(one, range(60)), rate_interval(np.repeat(one, 5), np.repeat(np.arange(60), 5))
    assert five.low == pytest.approx(single.low, abs=1e-9) and five.high == pytest.approx(single.high, abs=1e-9)


@pytest.mark.parametrize("value", [0.5, math.nan, 100.0])
def test_a_rate_of_other_numbers_is_refused(value):
    with pytest.raises(PluginError, match="must be 0 or 1, got"):
        rate_interval([1, value], ["a", "b"])
    with pytest.raises(PluginError, match="must be 0 or 1, got"):
        paired_difference([1, value], [1, 0], ["a", "b"], rate=True)


def test_one_prompt_has_no_interval():
    assert rate_interval([1, 0], ["a", "a"]) is None and mean_interval([1.5, 2.5], ["a", "a"]) is None
    assert paired_difference([1, 0], [0, 0], ["a", "a"], rate=True) == (0.5, None)
    assert paired_difference([1, 0], [0, 0], ["a", "a"], rate=False) == (0.5, None) and rate_interval([], []) is None and mean_interval([], []) is None


def test_paired_rates_with_one_image_a_prompt_use_the_score_interval():
    erased, base = [0, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0]
    value, found = paired_difference(erased, base, range(6), rate=True)
    assert value == pytest.approx(-2 / 6) and found.kind == "tango" and (found.low, found.high) == pytest.approx(tango(1, 3, 6))


def test_paired_rates_that_never_differ_still_have_a_width():
    _, found = paired_difference([1] * 10, [1] * 10, [i // 2 for i in range(10)], rate=True)
    assert found.kind == "tango-clustered" and limits(found) == pytest.approx(tango(0, 0, 5))


def test_incomplete_pairs_are_an_error():
    with pytest.raises(ValueError, match="pairs are not complete"):
        paired_difference([1, 0], [1], ["a", "b"], rate=True)
    with pytest.raises(ValueError, match="at least one pair"):
        paired_difference([], [], [], rate=True)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_scipy(b, c):
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-12) == mcnemar_exact(c, b)


@pytest.mark.parametrize(("b", "c"), [(2000, 2096), (2048, 2049), (2000, 2400), (5000, 6000), (100_000, 101_000), (500_400, 500_000), (1, 4095)])
def test_mcnemar_of_large_counts_loses_nothing(b, c):
    assert mcnemar_exact(b, c) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-10)


def test_mcnemar_at_the_ends():
    assert mcnemar_exact(0, 0) == mcnemar_exact(7, 7) == mcnemar_exact(3000, 3000) == 1.0
    assert mcnemar_exact(0, 5) == 2 / 32 and mcnemar_exact(0, 1000) == 2.0**-999 and mcnemar_exact(0, 100_000) == 0.0
    for wrong in ((-1, 3), (0.5, 3), (math.nan, 3)):
        with pytest.raises(ValueError, match="two whole numbers"):
            mcnemar_exact(*wrong)


def test_holm_by_hand():
    # sorted: .005 * 4 = .02, .01 * 3 = .03, .03 * 2 = .06, .04 * 1 = .04 but never less than the one before: .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        holm([0.1, 1.5])


def test_the_core_does_without_scipy():
    code = "import sys, conceptbench.core.statistics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
