from __future__ import annotations

import math

import numpy as np
import pytest
from clustered import PROMPTS, REALS, flat, limits, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from conceptbench.core.clusters import LEAST_ERROR, PRIOR_PROMPTS, RESAMPLES, Clustered, cluster_bootstrap, cluster_sums, effective_number, t975
from conceptbench.core.statistics import mean_interval, paired_difference, rate_interval, wilson


def looped_effective_number(prompts):
    """The definition, prompt by prompt."""
    values, c = [v for p in prompts for v in p], len(prompts)
    n, mean = len(values), sum(values) / len(values)
    whole = sum(len(p) ** 2 for p in prompts) / n
    stands_out = max(abs(mean), 1 - abs(mean)) ** 2
    between = c / (c - 1) * sum(sum(v - mean for v in p) ** 2 for p in prompts) + PRIOR_PROMPTS * whole**2 * stands_out
    within = sum((v - mean) ** 2 for v in values) + PRIOR_PROMPTS * whole * stands_out
    design = min(max(between / within, 1), whole)
    return max(n / design * (student.ppf(0.975, 10**9) / student.ppf(0.975, c - 1)) ** 2, n / whole)


@given(PROMPTS)
def test_the_effective_number_equals_its_definition(prompts):
    values, labels = flat(prompts)
    found = float(effective_number(Clustered.of(values, labels)))
    assert found == pytest.approx(looped_effective_number(prompts), rel=1e-4)
    assert len(values) / max(map(len, prompts)) - 1e-9 <= found <= len(values) + 1e-9
    assert limits(rate_interval(values, labels)) == pytest.approx(wilson(np.mean(values) * found, found), abs=1e-9)


def test_cluster_sums_take_labels_of_any_type():
    sums, counts = cluster_sums([1, 2, 4, 8], ["b", 1, "1", "b"])
    assert sums.tolist() == [9, 2, 4] and counts.tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="label of its cluster"):
        cluster_sums([1, 2], ["a"])


def test_student_quantiles():
    degrees = np.arange(1, 3000)
    assert np.abs(t975(degrees) - student.ppf(0.975, degrees)).max() < 1e-5


def test_bootstrap_repeats_and_follows_the_clusters():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 5)
    alike = np.repeat(rng.random(20), 5)
    assert cluster_bootstrap(alike, clusters) == cluster_bootstrap(alike, clusters)
    wide, narrow = cluster_bootstrap(alike, clusters), cluster_bootstrap(alike, np.arange(100))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])  # ignoring the prompts would claim too much


def looped_bootstrap(prompts, mean, error):
    """Bootstrap-t with loops: prompts in order of their gaps, every draw once as it is and once mirrored."""
    n = sum(map(len, prompts))
    prompts = sorted(prompts, key=lambda p: (sum(p) - mean * len(p), len(p)))
    ratios, c = [], len(prompts)
    for draw in np.random.default_rng(0).integers(0, c, size=(RESAMPLES // 2, c)):
        for chosen in ([prompts[i] for i in draw], [prompts[c - 1 - i] for i in draw]):
            size = sum(map(len, chosen))
            again = sum(map(sum, chosen)) / size
            spread = math.sqrt(c / (c - 1) * sum((sum(p) - again * len(p)) ** 2 for p in chosen)) / size
            ratios.append((again - mean) / max(spread, LEAST_ERROR * error))
    least, most = np.quantile(ratios, [0.025, 0.975])
    assert n == sum(map(len, prompts))
    return mean - most * error, mean - least * error


def test_the_bootstrap_equals_loops():
    rng = np.random.default_rng(3)
    prompts = [list(rng.exponential(size=k)) for k in (3, 1, 2, 5, 4, 2, 3)]
    values, labels = flat(prompts)
    mean, c = sum(values) / len(values), len(prompts)
    error = math.sqrt(c / (c - 1) * sum((sum(p) - mean * len(p)) ** 2 for p in prompts)) / len(values)
    assert cluster_bootstrap(values, labels) == pytest.approx(looped_bootstrap(prompts, mean, error), abs=1e-9)


@given(REALS, st.integers(0, 5))
@settings(max_examples=60)
def test_mean_intervals_hold_the_mean_and_ignore_order_and_names(prompts, seed):
    values, labels = flat(prompts)
    low, high = limits(mean_interval(values, labels))
    assert low <= np.mean(values) + 1e-12 and np.mean(values) - 1e-12 <= high
    assert limits(mean_interval(*shuffled(values, labels, seed))) == (low, high)


@pytest.mark.parametrize("images", [1, 4])
def test_mean_intervals_mirror_move_and_scale_with_the_values(images):
    x = np.random.default_rng(2).exponential(size=30 * images)
    labels = np.repeat(np.arange(30), images)
    low, high = limits(mean_interval(x, labels))
    assert high - x.mean() > x.mean() - low  # the long side
    mirrored, moved = mean_interval(-x, labels), mean_interval(3 + 2 * x, labels)
    assert (-mirrored.high, -mirrored.low) == pytest.approx((low, high), abs=1e-9)
    assert limits(moved) == pytest.approx((3 + 2 * low, 3 + 2 * high), abs=1e-9)
    y = np.random.default_rng(4).exponential(size=30 * images)
    (value, there), (other, back) = paired_difference(x, y, labels, rate=False), paired_difference(y, x, labels, rate=False)
    assert there.kind == "paired-cluster-bootstrap" and value == pytest.approx(-other)
    assert limits(there) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_equal_real_values_are_a_point():
    assert limits(mean_interval([0.25] * 6, "aabbcc")) == (0.25, 0.25)


def test_a_mean_of_what_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="finite values, got nan"):
        mean_interval([1.0, math.nan], ["a", "b"])
