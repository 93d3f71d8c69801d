from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from conceptbench.core.statistics import cluster_bootstrap, mean_interval, paired_difference, rate_interval, tango, wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(case):
    k, n = case
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-10)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses_nonsense(k, n):
    with pytest.raises(ValueError, match="wilson needs"):
        wilson(k, n)


def brute_force_tango(b, c, n):
    """All differences whose score, with the likelihood maximised on a grid of the nuisance parameter, is within 1.96."""
    inside = []
    for d in np.linspace(-0.9995, 0.9995, 4001):
        q = np.linspace(max(0, -d) + 1e-9, (1 - d) / 2, 20001)
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
    assert found.kind == "wilson-on-clusters" and (found.low, found.high) == pytest.approx(wilson(3 * rate, 3))


def test_one_prompt_has_no_interval():
    assert rate_interval([1, 0], ["a", "a"]) is None and mean_interval([1.5, 2.5], ["a", "a"]) is None
    assert paired_difference([1, 0], [0, 0], ["a", "a"], rate=True) == (0.5, None)


def test_bootstrap_repeats_and_follows_the_clusters():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 5)
    alike = np.repeat(rng.random(20), 5)
    assert cluster_bootstrap(alike, clusters) == cluster_bootstrap(alike, clusters)
    wide, narrow = cluster_bootstrap(alike, clusters), cluster_bootstrap(alike, np.arange(100))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])  # ignoring the prompts would claim too much


def test_coverage_of_rates_and_differences():
    """95 % intervals hold the truth in 92 to 98 % of 400 simulated experiments with prompts that differ."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(40), 5)
    single = paired = 0
    for _ in range(400):
        p = np.clip(rng.normal(0.6, 0.15, 40), 0.05, 0.95)
        base, erased = (rng.random((40, 5)) < p[:, None], rng.random((40, 5)) < (p - 0.3).clip(0.02)[:, None])
        found = rate_interval(base.ravel(), clusters)
        single += found.low <= 0.6 <= found.high
        _, gap = paired_difference(erased.ravel(), base.ravel(), clusters, rate=True)
        paired += gap.low <= -0.3 <= gap.high
    assert 0.92 <= single / 400 <= 0.98 and 0.92 <= paired / 400 <= 0.98


def test_paired_rates_with_one_image_a_prompt_use_the_score_interval():
    erased, base = [0, 0, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0]
    value, found = paired_difference(erased, base, range(6), rate=True)
    assert value == pytest.approx(-2 / 6) and found.kind == "tango" and (found.low, found.high) == pytest.approx(tango(1, 3, 6))


def test_paired_rates_that_never_differ_still_have_a_width():
    _, found = paired_difference([1] * 10, [1] * 10, [i // 2 for i in range(10)], rate=True)
    assert found.kind == "tango-on-clusters" and found.low < 0 < found.high


def test_incomplete_pairs_are_an_error():
    with pytest.raises(ValueError, match="pairs are not complete"):
        paired_difference([1, 0], [1], ["a", "b"], rate=True)
