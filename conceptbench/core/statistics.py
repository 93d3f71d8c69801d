"""Intervals for rates, means and paired differences; McNemar's exact test; Holm's correction. Pure functions of arrays.

Images of one prompt resemble each other, so the unit that varies is the prompt (the *cluster*). All intervals are at 95 %.

===========================  =====================  ==================================================================
what                         images a prompt        interval, and its name in ``Interval.kind``
===========================  =====================  ==================================================================
a rate                       one                    Wilson's score interval: ``wilson``
a rate                       several                Wilson on the effective number of images: ``wilson-clustered``
difference of paired rates   one                    Tango's score interval: ``tango``
difference of paired rates   several                Tango on the effective numbers of pairs: ``tango-clustered``
a mean                       any                    bootstrap-t that draws prompts: ``cluster-bootstrap``
a mean of differences        any                    the same: ``paired-cluster-bootstrap``
===========================  =====================  ==================================================================

The effective number is the number of independent images that would know as much: images / design effect (``clusters.effective_number``).
It replaces the percentile bootstrap by prompt for rates, which has no width, or far too little, where few prompts differ.

Coverage, simulated with 100 to 600 prompts, rates of 0.01, 0.5 and 0.99, and images of a prompt from independent to nearly alike
(intra-cluster correlation 0 to 0.9). ``python -m pytest tests/core/test_coverage.py -s`` prints each of these figures:

- rates: 95.0 to 95.7 % with one image a prompt, 94.4 to 96.7 % with five; with 20 to 60 prompts 94.9 to 97.7 %. Two
  a prompt: 95.2 to 96.1 %; ten: 93.8 to 97.7 %. If half of a rate of 1 % comes from one prompt in 200 that always shows it: 92.0 %.
- paired differences: 94.9 to 96.4 % with one image a prompt, 94.7 to 96.5 % with five, where at least 20 prompts differ or the pairs
  are independent. Where fewer differ, more, up to 100 %: so few cannot speak against "no change". With 20 to 60 prompts at least 94.9 %.
- means, 24 to 100 prompts (500 experiments each, so +- 1): exponential values 93.4 and 95.6 % with one and five images a prompt
  (the percentile bootstrap 92.0 and 92.8 %), log-normal ones 93.0 and 92.2 % (88.2 and 90.6 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from conceptbench.core.clusters import LEVEL, Z95, Clustered, Floats, Labels, as_list, cluster_bootstrap, cluster_sums, effective_number
from conceptbench.core.errors import PluginError

__all__ = (
    "Interval",
    "cluster_bootstrap",
    "cluster_sums",
    "holm",
    "mcnemar_exact",
    "mean_interval",
    "paired_difference",
    "paired_limits",
    "rate_interval",
    "rate_limits",
    "tango",
    "wilson",
)


EXACT_PAIRS = 4096
"""Up to this number of pairs McNemar's test counts with integers."""


@dataclass(frozen=True)
class Interval:
    """An interval at a level, and the method that made it (the module's table lists them)."""

    low: float
    high: float
    kind: str
    level: float = LEVEL


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's score interval for a rate (Wilson 1927).

    Args:
        successes: how many of ``n`` succeeded, 0 <= successes <= n; may be fractional, as effective numbers are.
        n: how many were tried, at least 1.

    Returns:
        low, high in [0, 1] at 95 %.

    Raises:
        ValueError: if the numbers are not like that.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    low, high = _wilson(np.asarray(successes / n), np.asarray(n, np.float64))
    return float(low), float(high)


def _wilson(p: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Wilson's limits for observed rates p of effective numbers n."""
    z2 = Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(np.maximum(0.0, p * (1 - p)) / n + z2 / (4 * n * n))
    return np.where(p <= 0, 0.0, np.maximum(0.0, centre - half)), np.where(p >= 1, 1.0, np.minimum(1.0, centre + half))


def rate_limits(data: Clustered) -> tuple[Floats, Floats]:
    """The limits of :func:`rate_interval` for one experiment or for many at once."""
    return _wilson(data.total / data.n, effective_number(data))


def rate_interval(values: ArrayLike, clusters: Labels) -> Interval | None:
    """The interval of a rate from 0/1 values: Wilson on the effective number of images. It never has a width of zero.

    Args:
        values: (N,) zeros and ones.
        clusters: (N,) prompt of each.

    Returns:
        The interval; None with fewer than two prompts.

    Raises:
        PluginError: if a value is neither 0 nor 1.
    """
    x = _zeros_and_ones(values)
    data = Clustered.of(x, clusters)
    if data.clusters < 2:
        return None
    low, high = rate_limits(data)
    return Interval(float(low), float(high), _kind("wilson", data))


def _kind(name: str, data: Clustered) -> str:
    return name if data.clusters == data.n else f"{name}-clustered"


def _zeros_and_ones(values: ArrayLike) -> Floats:
    x = np.asarray(values, np.float64)
    wrong = x[(x != 0) & (x != 1)]
    if wrong.size:
        raise PluginError(f"the values of a rate must be 0 or 1, got {wrong[0]:g}", "A metric of other numbers sets `is_rate = False`.")
    return x


def mean_interval(values: ArrayLike, clusters: Labels, seed: int = 0) -> Interval | None:
    """The interval of a mean of real values: :func:`cluster_bootstrap`. None with fewer than two prompts."""
    labels = as_list(clusters)
    if len(set(labels)) < 2:
        return None
    return Interval(*cluster_bootstrap(values, labels, seed), "cluster-bootstrap")


def tango(only_first: float, only_second: float, n: float) -> tuple[float, float]:
    """Tango's score interval for the difference of two paired proportions (Tango 1998).

    Args:
        only_first: pairs in which only the first succeeded (b); may be fractional, as effective numbers are.
        only_second: pairs in which only the second succeeded (c).
        n: all pairs.

    Returns:
        low, high of (b - c) / n in [-1, 1] at 95 %.

    Raises:
        ValueError: unless b, c >= 0, b + c <= n and n >= 1.
    """
    if not (n >= 1 and only_first >= 0 and only_second >= 0 and only_first + only_second <= n):
        raise ValueError(f"tango needs b, c >= 0 and b + c <= n, got b={only_first}, c={only_second}, n={n}")
    low, high = _tango(*(np.asarray(v, np.float64) for v in (only_first, only_second, n)))
    return float(low), float(high)


def _tango(b: Floats, c: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Tango's limits, both by bisection: where (b - c - n d)² is Z95² times its variance if the true difference were d."""
    estimate, one = (b - c) / n, np.ones(np.shape(n))
    low, high = np.stack([-one, estimate]), np.stack([estimate, one])
    level = np.reshape([Z95**2, -(Z95**2)], (2, *(1 for _ in one.shape)))
    slope, product = 2 * n - b + c, 8 * n * c
    for _ in range(46):  # to 3e-14
        d = (low + high) / 2
        # restricted maximum likelihood of the probability of "only second", given d, is q = (root - a) / 4n
        spread, a = d * (1 - d), slope * d - (b + c)
        root = np.sqrt(np.maximum(0.0, a * a + product * spread))
        variance = (root - a) / 2 + n * spread  # n (2 q + d (1 - d))
        gap = b - c - n * d
        above = gap * np.abs(gap) > level * variance
        low, high = np.where(above, d, low), np.where(above, high, d)
    below, over = (low + high) / 2
    return below, over


def paired_limits(data: Clustered) -> tuple[Floats, Floats]:
    """The limits of :func:`paired_difference` for rates, for one experiment or for many at once. Values are -1, 0 or 1."""
    share = effective_number(data) / data.n
    return _tango((data.squares + data.total) / 2 * share, (data.squares - data.total) / 2 * share, data.n * share)


def paired_difference(first: ArrayLike, second: ArrayLike, clusters: Labels, *, rate: bool, seed: int = 0) -> tuple[float, Interval | None]:
    """The mean of first - second over pairs (same condition, same seed), with its interval.

    Args:
        first: (N,) values of the erased model.
        second: (N,) values of the base, in the same order.
        clusters: (N,) prompt of each pair.
        rate: whether the values are 0/1. Rates get Tango's interval on the effective number of pairs, never a width of zero.
        seed: of the bootstrap, which other values get.

    Returns:
        The difference and its interval; no interval with fewer than two prompts.

    Raises:
        ValueError: if the pairs are not complete, or there is none.
        PluginError: if a value of a rate is neither 0 nor 1.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"pairs are not complete: {x.shape} against {y.shape}")
    if not x.size:
        raise ValueError("a difference needs at least one pair, got none")
    d, labels = x - y, as_list(clusters)
    mean = math.fsum(d) / len(d)
    if not rate:
        found = mean_interval(d, labels, seed)
        return mean, found and Interval(found.low, found.high, f"paired-{found.kind}")
    _zeros_and_ones(np.stack([x, y]))
    data = Clustered.of(d, labels)
    if data.clusters < 2:
        return mean, None
    low, high = paired_limits(data)
    return mean, Interval(float(low), float(high), _kind("tango", data))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """McNemar's exact test of "no change" in paired 0/1 values: the two-sided binomial p value of the pairs that differ.

    Exact for independent pairs: one image a prompt. With several, count prompts, not images.

    Args:
        only_first: pairs in which only the first succeeded, >= 0.
        only_second: pairs in which only the second succeeded, >= 0.

    Returns:
        min(1, 2 · P(X <= the smaller count)), X ~ Binomial(sum of both, 1/2). 1 if no pair differs; 0 only where a float cannot hold it.

    Raises:
        ValueError: if a count is negative or not whole.
    """
    if not all(float(count).is_integer() and count >= 0 for count in (only_first, only_second)):
        raise ValueError(f"mcnemar_exact needs two whole numbers >= 0, got {only_first} and {only_second}")
    k, n = int(min(only_first, only_second)), int(only_first + only_second)
    if n <= EXACT_PAIRS:
        term = below = 1
        for i in range(k):
            term = term * (n - i) // (i + 1)
            below += term
        return min(1.0, 2 * below / (1 << n))
    if k == 0:
        return 0.0
    # P(X = k) with Stirling's series, because differences of lgamma lose digits; then the terms below it, each a share of the one above
    log_term = 0.5 * math.log(n / (2 * math.pi * k * (n - k))) + _stirling(n) - _stirling(k) - _stirling(n - k)
    skew = (n - 2 * k) / n
    log_term -= n / 2 * ((1 - skew) * math.log1p(-skew) + (1 + skew) * math.log1p(skew))
    share, shares = 1.0, 0.0
    for i in range(k, -1, -1):
        shares += share
        share *= i / (n - i + 1)
        if share < 1e-18 * shares:
            break
    return min(1.0, 2 * math.exp(log_term) * shares)


def _stirling(n: int) -> float:
    """The remainder of Stirling's formula: log n! - log(sqrt(2 pi n) (n / e)^n)."""
    return 1 / (12 * n) - 1 / (360 * n**3) + 1 / (1260 * n**5)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values for several tests at once (Holm 1979): each at most alpha rejects, with a family error of at most alpha.

    Args:
        p_values: in [0, 1], in any order; may be empty.

    Returns:
        The adjusted values in the same order: the i-th smallest times (number of tests - i + 1), at most 1 and never falling.

    Raises:
        ValueError: if a value is not in [0, 1].
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"a p value is a number from 0 to 1, got {wrong[0]}")
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted
