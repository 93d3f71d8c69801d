"""Values in clusters (images of prompts): sums, the effective number of images, and the bootstrap that draws whole clusters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
RESAMPLES = 2000
Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
T975 = (math.inf, 12.7062047364, 4.3026527297, 3.1824463053, 2.7764451052, 2.5705818356, 2.4469118511, 2.3646242516, 2.3060041352, 2.2621571628)
"""The 97.5 % quantile of Student's t with 0 (never used) to 9 degrees of freedom."""
PRIOR_PROMPTS = 0.1
"""How many prompts, all of whose images agree, are added to the data when the design effect is estimated."""
LEAST_ERROR = 0.25
"""Bound below for a resample's standard error, as a share of the sample's; a resample of equal values has none of its own."""

Floats = NDArray[np.float64]
Labels = Iterable[Hashable] | NDArray[Any]


@dataclass(frozen=True)
class Clustered:
    """What the intervals of rates need to know of values v in {0, 1} or {-1, 0, 1}; one experiment, or arrays of one shape for many.

    Attributes:
        clusters: number of prompts, at least 2.
        n: number of values.
        total: sum of v.
        squares: sum of v².
        sums_squared: sum over prompts of (sum of v)².
        sums_sizes: sum over prompts of (sum of v) · (number of values).
        sizes_squared: sum over prompts of (number of values)².
    """

    clusters: Floats
    n: Floats
    total: Floats
    squares: Floats
    sums_squared: Floats
    sums_sizes: Floats
    sizes_squared: Floats

    @classmethod
    def of(cls, values: ArrayLike, clusters: Labels) -> Clustered:
        """The sums for one experiment. values: (N,); clusters: (N,) labels."""
        x = np.asarray(values, np.float64)
        sums, sizes = cluster_sums(x, clusters)
        found = (len(sums), len(x), x.sum(), x @ x, sums @ sums, sums @ sizes, sizes @ sizes)
        return cls(*(np.asarray(v, np.float64) for v in found))


def as_list(labels: Labels) -> list[Hashable]:
    """The labels as a list of Python objects."""
    return labels.tolist() if isinstance(labels, np.ndarray) else list(labels)


def cluster_sums(values: ArrayLike, clusters: Labels) -> tuple[Floats, Floats]:
    """Sum and count of the values of each cluster, in the order in which the clusters first appear.

    Args:
        values: (N,) numbers.
        clusters: (N,) labels of any hashable type.

    Returns:
        Sums and counts, (C,) float64 each.

    Raises:
        ValueError: if there is not one label for each value.
    """
    x = np.asarray(values, np.float64)
    seen: dict[Hashable, int] = {}
    index = np.array([seen.setdefault(label, len(seen)) for label in as_list(clusters)], np.int64)
    if x.shape != index.shape:
        raise ValueError(f"each value needs the label of its cluster, got values of shape {x.shape} and {len(index)} labels")
    sums: Floats = np.bincount(index, weights=x).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def t975(degrees: ArrayLike) -> Floats:
    """The 97.5 % quantile of Student's t, to 1e-5. degrees: whole numbers >= 1.

    From a table below 10, from there on by the expansion of Abramowitz and Stegun, 26.7.5.
    """
    v, z = np.asarray(degrees, np.float64), Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    expansion = z + sum(term / v**k for k, term in enumerate(terms, 1))
    return np.where(v < len(T975), np.take(T975, v.astype(np.int64), mode="clip"), expansion)


def effective_number(data: Clustered) -> Floats:
    """How many independent values know as much about the mean as these clustered ones: between images / images a prompt and images.

    The design effect is the variance of the mean over prompts (linearised, as for a ratio) against its variance if values were
    independent (Kish 1965). It is at least 1 and at most what identical images within each prompt would give. t against z pays for
    its being an estimate, as in Korn and Graubard (1998). Dean and Pagano (2015) compare the intervals that use such a number, Wilson's
    among them.

    Where few prompts stand out, the design effect is hardly known. So ``PRIOR_PROMPTS`` of a prompt that stands out as a whole is
    added, which gives the largest design effect when all values agree, and next to nothing once some ten prompts stand out.
    """
    mean = data.total / data.n
    between = data.sums_squared - 2 * mean * data.sums_sizes + mean**2 * data.sizes_squared
    between = between * data.clusters / (data.clusters - 1)
    within = data.squares - data.n * mean**2
    whole = data.sizes_squared / data.n  # images a prompt; the largest design effect
    apart = PRIOR_PROMPTS * whole * np.maximum(np.abs(mean), 1 - np.abs(mean)) ** 2
    design = np.clip((between + apart * whole) / (within + apart), 1.0, whole)
    found: Floats = np.maximum(data.n / design * (Z95 / t975(data.clusters - 1)) ** 2, data.n / whole)
    return found


def cluster_bootstrap(values: ArrayLike, clusters: Labels, seed: int = 0) -> tuple[float, float]:
    """Bootstrap-t interval of the mean, drawing whole clusters with replacement (Davison and Hinkley 1997, section 5.2).

    Each resample's shift is divided by its own standard error, so that skewed values get an interval that reaches further to their
    long side. Half of the resamples mirror the others in the order of the clusters, so that the interval of -x is that of x, mirrored.
    It depends on the seed alone, not on the order of values and clusters. Values that are all equal give a width of zero.

    Args:
        values: (N,) real numbers.
        clusters: (N,) prompt of each.
        seed: of the resamples.

    Returns:
        low, high at 95 %.

    Raises:
        ValueError: with fewer than two clusters, or if a value is not finite.
    """
    x = np.asarray(values, np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"a mean needs finite values, got {x[~np.isfinite(x)][0]}")
    order = np.argsort(x, kind="stable")  # sums of floats depend on the order
    labels = as_list(clusters)
    sums, sizes = cluster_sums(x[order], [labels[i] for i in order] if len(labels) == len(x) else labels)
    c = len(sums)
    if c < 2:
        raise ValueError("a clustered interval needs at least two clusters")
    mean = math.fsum(x) / len(x)
    gaps = sums - mean * sizes
    order = np.lexsort((sizes, gaps))
    gaps, sizes = gaps[order], sizes[order]
    error = math.sqrt(c / (c - 1) * float(gaps @ gaps)) / len(x)
    rng, parts = np.random.default_rng(seed), []
    block = max(1, 1_000_000 // c)  # bounds the memory
    for start in range(0, RESAMPLES // 2, block):
        draws = rng.integers(0, c, size=(min(block, RESAMPLES // 2 - start), c))
        parts += [_studentised(gaps, sizes, draws, LEAST_ERROR * error), _studentised(gaps[::-1], sizes[::-1], draws, LEAST_ERROR * error)]
    least, most = np.quantile(np.concatenate(parts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(mean, mean - float(most) * error), max(mean, mean - float(least) * error)


def _studentised(gaps: Floats, sizes: Floats, draws: NDArray[np.int64], least: float) -> Floats:
    """(mean of a resample - mean) / its standard error, for each row of draws. gaps: (C,) cluster sums less what the mean expects."""
    c = len(gaps)
    gap, size = gaps[draws], sizes[draws]
    n = size.sum(1)
    shift = gap.sum(1) / n
    squares = (gap * gap).sum(1) - 2 * shift * (gap * size).sum(1) + shift**2 * (size * size).sum(1)
    error = np.maximum(np.sqrt(np.maximum(0.0, squares) * c / (c - 1)) / n, least)
    found: Floats = np.divide(shift, error, out=np.zeros_like(shift), where=error > 0)
    return found
