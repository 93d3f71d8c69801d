"""Intervals for rates, means and paired differences: pure functions of arrays.

Images of one prompt resemble each other, so the unit that varies is the prompt (the *cluster*): several images a prompt are
resampled by prompt, one image a prompt is an ordinary sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
RESAMPLES = 2000
Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Interval:
    """An interval at a level, and the method that made it (``wilson``, ``cluster-bootstrap``, ``normal``, ``tango`` ...)."""

    low: float
    high: float
    kind: str
    level: float = LEVEL


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval for a rate (Wilson 1927).

    Args:
        successes: how many of ``n`` succeeded, 0 <= successes <= n; may be fractional when clusters are counted.
        n: how many were tried, at least 1.

    Returns:
        low, high in [0, 1] at 95 %.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def cluster_sums(values: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count of the values of each cluster. values: (N,) floats; clusters: (N,) labels of any type."""
    x = np.asarray(values, np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(index, weights=x).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def cluster_bootstrap(values: ArrayLike, clusters: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, drawing whole clusters with replacement.

    The deviations of the resampled means are widened by sqrt(C / (C - 1)), C clusters, which removes the bootstrap's
    small-sample bias of the variance.
    """
    sums, counts = cluster_sums(values, clusters)
    c = len(sums)
    if c < 2:
        raise ValueError("a clustered interval needs at least two clusters")
    draws = np.random.default_rng(seed).integers(0, c, size=(RESAMPLES, c))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    centre = sums.sum() / counts.sum()
    means = centre + (means - centre) * math.sqrt(c / (c - 1))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def rate_interval(values: ArrayLike, clusters: ArrayLike, seed: int = 0) -> Interval | None:
    """The interval of a rate from 0/1 values.

    One image a prompt: Wilson. Otherwise the bootstrap by prompt; when every image agrees, Wilson on the number of prompts
    (a width of zero would claim certainty). None with fewer than two prompts.
    """
    x = np.asarray(values, np.float64)
    sums, counts = cluster_sums(x, clusters)
    c, rate = len(sums), float(x.mean())
    if c < 2:
        return None
    if counts.max() == 1:
        return Interval(*wilson(float(x.sum()), c), "wilson")
    if rate in (0.0, 1.0):
        return Interval(*wilson(rate * c, c), "wilson-on-clusters")
    low, high = cluster_bootstrap(x, clusters, seed)
    return Interval(max(0.0, low), min(1.0, high), "cluster-bootstrap")


def mean_interval(values: ArrayLike, clusters: ArrayLike, seed: int = 0) -> Interval | None:
    """The interval of a mean of real values: bootstrap by prompt. None with fewer than two prompts."""
    if len(np.unique(np.asarray(clusters))) < 2:
        return None
    return Interval(*cluster_bootstrap(values, clusters, seed), "cluster-bootstrap")


def tango(only_first: float, only_second: float, n: int) -> tuple[float, float]:
    """Tango's score interval for the difference of two paired proportions (Tango 1998).

    Args:
        only_first: pairs in which only the first succeeded (b).
        only_second: pairs in which only the second succeeded (c).
        n: all pairs.

    Returns:
        low, high of (b - c) / n in [-1, 1] at 95 %.
    """
    if n < 1 or only_first < 0 or only_second < 0 or only_first + only_second > n:
        raise ValueError(f"tango needs b, c >= 0 and b + c <= n, got b={only_first}, c={only_second}, n={n}")
    b, c = only_first, only_second

    def score(d: float) -> float:
        # restricted maximum likelihood of the probability of "only second", given the difference d
        a1 = -b - c + (2 * n - b + c) * d
        a0 = -c * d * (1 - d)
        p = (math.sqrt(max(0.0, a1 * a1 - 8 * n * a0)) - a1) / (4 * n)
        variance = n * (2 * p + d * (1 - d))
        gap = b - c - n * d
        if variance <= 0:
            return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
        return gap / math.sqrt(variance)

    estimate = (b - c) / n
    return _root(score, -1.0, estimate, Z95), _root(score, estimate, 1.0, -Z95)


def _root(score, low: float, high: float, level: float) -> float:  # type: ignore[no-untyped-def]
    """Bisection of the decreasing function ``score`` for ``level`` between low and high."""
    for _ in range(80):
        middle = (low + high) / 2
        if score(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def paired_difference(first: ArrayLike, second: ArrayLike, clusters: ArrayLike, *, rate: bool, seed: int = 0) -> tuple[float, Interval | None]:
    """The mean of first - second over pairs (same condition, same seed), with its interval.

    Args:
        first: (N,) values of the erased model.
        second: (N,) values of the base, in the same order.
        clusters: (N,) prompt of each pair.
        rate: whether the values are 0/1. Rates get a score interval with one image a prompt, or when the pairs of every
            prompt differ alike, because the bootstrap's width would be zero there; never a width of zero.
        seed: of the bootstrap.

    Returns:
        The difference and its interval; no interval with fewer than two prompts.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"pairs are not complete: {x.shape} against {y.shape}")
    d = x - y
    sums, counts = cluster_sums(d, clusters)
    c, mean = len(sums), float(d.mean())
    if c < 2:
        return mean, None
    per_cluster = sums / counts
    if rate and (counts.max() == 1 or np.ptp(per_cluster) == 0):
        # with alike clusters, count prompts instead of images
        up, down = float(np.clip(per_cluster, 0, None).sum()), float(np.clip(-per_cluster, 0, None).sum())
        kind = "tango" if counts.max() == 1 else "tango-on-clusters"
        return mean, Interval(*tango(up, down, c), kind)
    low, high = cluster_bootstrap(d, clusters, seed)
    bound = 1.0 if rate else math.inf
    return mean, Interval(max(-bound, low), min(bound, high), "paired-cluster-bootstrap")
