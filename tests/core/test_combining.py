from __future__ import annotations

import functools
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.core.combining import Bounded, harmonic, mover, ratio, sum_of
from conceptbench.core.statistics import wilson

IMAGES = (50, 100, 250, 500)
EXPERIMENTS = 6000


@functools.cache
def rate(hits, n):
    return Bounded(hits / n, *wilson(hits, n))


RATES = st.sampled_from(IMAGES).flatmap(lambda n: st.integers(0, n).map(lambda k: rate(k, n)))
SEEN = st.sampled_from(IMAGES).flatmap(lambda n: st.integers(1, n).map(lambda k: rate(k, n)))


def test_limits_are_around_the_value():
    for wrong in ((0.5, 0.6, 0.7), (0.5, 0.2, 0.4), (math.nan, 0, 1), (0.5, math.nan, 1), (math.inf, 0, math.inf)):
        with pytest.raises(ValueError, match="around the value"):
            Bounded(*wrong)
    assert Bounded(0.2, 0.1, 0.4).complement() == Bounded(0.8, 0.6, 0.9)


def test_a_difference_of_two_rates_is_newcombes():
    """MOVER with Wilson's limits for p1 - p2 is Newcombe's method 10; his published example, 56/70 - 48/80: .2 (.0524, .3339)."""
    found = mover((1, -1), (rate(56, 70), rate(48, 80)))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("method", [mover, sum_of])
@given(st.lists(st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), RATES), min_size=1, max_size=9).filter(lambda p: any(w for w, _ in p)))
def test_a_sum_is_the_sum_and_turns_with_its_sign(method, pairs):
    weights, terms = [w for w, _ in pairs], [t for _, t in pairs]
    found, mirrored = method(weights, terms), method([-w for w in weights], terms)
    assert found.value == pytest.approx(sum(w * t.value for w, t in pairs))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert found.low < found.high


@pytest.mark.parametrize("method", [mover, sum_of])
@given(st.sampled_from([-3.0, 0.5, 1.0]), RATES)
def test_one_term_keeps_its_limits(method, weight, term):
    found = method([weight], [term])
    assert sorted((found.low, found.high)) == pytest.approx(sorted((weight * term.low, weight * term.high)), abs=1e-12)


@pytest.mark.parametrize("method", [mover, sum_of])
def test_symmetric_limits_add_as_standard_errors(method):
    found = method((1, -2), (Bounded(5, 2, 8), Bounded(1, -1, 3)))
    assert (found.value, found.low, found.high) == pytest.approx((3, -2, 8))
    for weights, terms in (((), ()), ((0,), (Bounded(1, 0, 2),))):
        with pytest.raises(ValueError, match="at least one term"):
            method(weights, terms)
    with pytest.raises(ValueError, match="argument"):
        method((1, 1), (Bounded(1, 0, 2),))
    unknown = method((1, 1), (Bounded(1, 0, 2), Bounded(1, 0, math.inf)))
    assert unknown.high == math.inf


def test_asymmetry_shrinks_as_terms_are_added():
    few, many = (sum_of([1] * n, [Bounded(0, 0, 2)] * n) for n in (1, 100))
    assert (few.low, few.high) == (0, 2) and (many.low, many.high) == pytest.approx((-9, 11))  # half of each is 1, as is its shift


@pytest.mark.parametrize(
    ("top", "bottom"), [(rate(30, 100), rate(45, 50)), (rate(1, 50), rate(3, 50)), (rate(50, 50), rate(49, 50)), (rate(0, 50), rate(50, 50))]
)
def test_a_ratio_is_where_movers_difference_reaches_zero(top, bottom):
    """The definition: the limits R at which the interval of numerator - R denominator has 0 for an end; by bisection."""

    def crossing(end, low, high):
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if end(middle) > 0 else (low, middle)
        return low

    found, r = ratio(top, bottom), top.value / bottom.value
    assert found.value == pytest.approx(r)
    assert found.low == pytest.approx(crossing(lambda x: mover((1, -x), (top, bottom)).low, 0, r), abs=1e-9)
    assert found.high == pytest.approx(crossing(lambda x: mover((1, -x), (top, bottom)).high, r, r + 1000), abs=1e-9)


@given(SEEN, SEEN)
def test_the_inverse_ratio_has_the_inverse_limits(top, bottom):
    found, inverse = ratio(top, bottom), ratio(bottom, top)
    assert (found.low, found.high) == pytest.approx((1 / inverse.high, 1 / inverse.low), rel=1e-6)


def test_ratios_that_have_no_limit_or_no_value():
    assert ratio(Bounded(0.5, 0.4, 0.6), Bounded(0.1, 0.0, 0.3)).high == math.inf
    assert ratio(rate(0, 50), rate(25, 50)).low == 0 < ratio(rate(0, 50), rate(25, 50)).high
    for top, bottom in ((rate(3, 50), rate(0, 50)), (Bounded(0, -1, 1), rate(3, 50)), (rate(3, 50), Bounded(1, -1, 2))):
        with pytest.raises(ValueError, match="not negative and a denominator above 0"):
            ratio(top, bottom)


@given(RATES, RATES)
def test_harmonic_is_symmetric_between_its_terms_and_never_without_width(first, second):
    found = harmonic(first, second)
    assert found == harmonic(second, first) and 0 <= found.low < found.high <= 1
    low, high = sorted((first.value, second.value))
    assert low * 0.999999 <= found.value <= high * 1.000001
    if low > 0:
        assert found.value == pytest.approx(2 / (1 / low + 1 / high))
    else:
        assert found.value == found.low == 0


def test_harmonic_of_zero_is_what_small_rates_tend_to():
    upper = wilson(0, 100)[1]
    tiny = Bounded(1e-9, 0, upper)
    assert harmonic(rate(0, 100), rate(80, 100)).high == pytest.approx(harmonic(tiny, rate(80, 100)).high, rel=1e-6)
    none = harmonic(rate(0, 100), rate(0, 100))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(upper))
    assert harmonic(tiny, rate(80, 100)).low == 0
    with pytest.raises(ValueError, match="rates from 0 to 1"):
        harmonic(Bounded(30, 20, 40), rate(1, 50))


def say(line):
    sys.stdout.write(f"{line}\n")


def drawn(rng, *rates):
    """Experiments: the numbers of images, and how many of them succeed for each rate."""
    numbers = rng.choice(IMAGES, EXPERIMENTS)
    return zip(numbers.tolist(), np.stack([rng.binomial(numbers, p) for p in rates], 1).tolist(), strict=True)


def percent(found, truth):
    return 100 * np.mean([f.low <= truth <= f.high for f in found])


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99), (0.05, 0.9), (0.02, 0.02), (0.999, 0.9)])
def test_coverage_of_harmonic_means(first, second):
    truth = 2 * first * second / (first + second)
    found = percent([harmonic(rate(a, n), rate(b, n)) for n, (a, b) in drawn(np.random.default_rng(1), first, second)], truth)
    say(f"harmonic mean of {first} and {second}: {found:.1f} %")
    assert 91.5 <= found <= 97.5


@pytest.mark.parametrize(("top", "bottom"), [(0.5, 0.5), (0.01, 0.9), (0.9, 0.95), (0.05, 0.1)])
def test_coverage_of_ratios(top, bottom):
    rng = np.random.default_rng(2)
    found = percent([ratio(rate(a, n), rate(b, n)) for n, (a, b) in drawn(rng, top, bottom) if b], top / bottom)
    say(f"{top} / {bottom}, independent: {found:.1f} %")
    assert 92 <= found <= 97


@pytest.mark.parametrize(("top", "bottom"), [(0.5, 0.5), (0.05, 0.9), (0.9, 0.95)])
@pytest.mark.parametrize("shared", [0.5, 0.9])
def test_coverage_of_ratios_of_the_same_images(top, bottom, shared):
    """Part of the images are decided by one draw for both models, so the interval is too wide, and not too narrow."""
    rng = np.random.default_rng(3)
    both, alone = min(top, bottom) * shared + top * bottom * (1 - shared), 1.0
    chances = [both, top - both, bottom - both, alone - top - bottom + both]
    found = []
    for n in rng.choice(IMAGES, EXPERIMENTS):
        counts = rng.multinomial(n, chances)
        found.append(ratio(rate(int(counts[0] + counts[1]), int(n)), rate(int(counts[0] + counts[2]), int(n))))
    covered = percent(found, top / bottom)
    say(f"{top} / {bottom}, {shared} of the images shared: {covered:.1f} %")
    assert covered >= 93


@pytest.mark.parametrize(("gone", "kept"), [(0.01, 0.99), (0.1, 0.95), (0.001, 0.999), (0.5, 0.5), (0.05, 0.99)])
def test_coverage_of_a_sum_of_nine(gone, kept):
    weights, truth = [1] * 3 + [-1] * 6, 3 * gone - 6 * kept
    terms = [[rate(k, n) for k in hits] for n, hits in drawn(np.random.default_rng(4), *[gone] * 3, *[kept] * 6)]
    found, plain = (percent([method(weights, t) for t in terms], truth) for method in (sum_of, mover))
    say(f"three of {gone} minus six of {kept}: {found:.1f} %, by MOVER {plain:.1f} %")
    assert found >= 93 and (found > plain or gone == 0.5)
