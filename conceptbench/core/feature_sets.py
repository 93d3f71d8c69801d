"""How far two sets of feature vectors are apart: FID, KID, precision and recall. Pure functions of arrays, in float64.

``real`` is the reference, ``generated`` are a model's images, and both must be named in a call: precision is recall with the two
exchanged, and published tables have them exchanged (the command that Selective Amnesia released gives the generated images first to a
program that expects the reference first).

=========  =======================================================================================================================
FID        Heusel et al. 2017, eq. 6: the squared Fréchet distance of two normal distributions
KID        Binkowski et al. 2018, sec. 4: the unbiased estimate of MMD² with the kernel (x·y / d + 1)³
precision  Kynkäänniemi et al. 2019, eq. 1 and 2: the share of generated images inside the manifold of the real ones
recall     the same: the share of real images inside the manifold of the generated ones
=========  =======================================================================================================================
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conceptbench.core.clusters import t975

Features = NDArray[np.float64]
CELLS = 1 << 24  # of a block of distances: 128 MB
ROUNDING = 1e-12  # of squared distances made of dot products, as a share of the largest squared length


class UndefinedError(ValueError):
    """The quantity does not exist for these two sets; the message says why."""


def _checked(name: str, real: ArrayLike, generated: ArrayLike, least_real: int, least_generated: int) -> tuple[Features, Features]:
    """Both sets in float64.

    Raises:
        UndefinedError: too few images, or a feature that is not a finite number.
        ValueError: not two matrices with the same number of columns.
    """
    sides = {"real": np.asarray(real, np.float64), "generated": np.asarray(generated, np.float64)}
    if len(sides["real"]) < least_real or len(sides["generated"]) < least_generated:
        raise UndefinedError(
            f"{name} needs at least {least_generated} generated and {least_real} real images, got {len(sides['generated'])} and {len(sides['real'])}"
        )
    if any(x.ndim != 2 for x in sides.values()) or len({x.shape[1] for x in sides.values()}) != 1:
        raise ValueError(f"{name} compares (N, D) with (M, D) features, got {sides['generated'].shape} and {sides['real'].shape}")
    for side, x in sides.items():
        wrong = int((~np.isfinite(x)).any(1).sum())
        if wrong:
            raise UndefinedError(f"{wrong} of {len(x)} {side} images have features that are no finite numbers")
    return sides["real"], sides["generated"]


def _root(x: Features) -> Features:
    """A matrix R with R'R = the covariance (of the sample, ddof 1) and at most as many rows as columns, or as images."""
    root: Features = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    if len(x) > x.shape[1]:
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return root


def fid(*, real: ArrayLike, generated: ArrayLike) -> float:
    """The squared Fréchet distance: |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½).

    tr (S1 S2)^½ is the sum of the singular values of R1 R2', where Ri'Ri = Si. No root of a matrix is taken, so that fewer images than
    features are no difficulty: the value is exact for the two sets. As an estimate it is biased upward, the more the fewer the images.

    Args:
        real: (M, D) features of the reference, M >= 2.
        generated: (N, D) of the model's images, N >= 2.

    Returns:
        At least 0; the same with the sets exchanged.

    Raises:
        UndefinedError: too few images, or features that are no finite numbers.
    """
    x, y = _checked("FID", real, generated, 2, 2)
    gap, a, b = x.mean(0) - y.mean(0), _root(x), _root(y)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + (a * a).sum() + (b * b).sum() - 2 * shared))


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CELLS // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _kernel_sum(x: Features, y: Features) -> float:
    """The sum of (x·y / d + 1)³ over all pairs."""
    return math.fsum(float(((x[part] @ y.T / x.shape[1] + 1) ** 3).sum()) for part in _row_blocks(len(x), len(y)))


def _kernel_trace(x: Features, y: Features) -> float:
    """The same sum over the pairs of rows with the same number."""
    return float((((x * y).sum(1) / x.shape[1] + 1) ** 3).sum())


def kid(*, real: ArrayLike, generated: ArrayLike, paired: bool = False) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy, with the cubic kernel.

    Args:
        real: (M, D) features of the reference, M >= 2.
        generated: (N, D) of the model's images, N >= 2.
        paired: whether row i of both was made for the same prompt from the same noise. Such two depend on each other, and the estimate
            is unbiased only without the terms of an image with its own partner (Gretton et al. 2012, eq. 4, a U-statistic); equal sets
            then have the distance 0, up to rounding. Otherwise it is their eq. 3, with all M N terms, as everywhere in use.

    Returns:
        The distance; below 0 for sets that are closer than chance.

    Raises:
        UndefinedError: too few images, or features that are no finite numbers.
        ValueError: pairs are not complete.
    """
    x, y = _checked("KID", real, generated, 2, 2)
    m, n = len(x), len(y)
    if paired and m != n:
        raise ValueError(f"pairs are not complete: {n} generated images and {m} real ones")
    within = (_kernel_sum(x, x) - _kernel_trace(x, x)) / (m * (m - 1)) + (_kernel_sum(y, y) - _kernel_trace(y, y)) / (n * (n - 1))
    across = (_kernel_sum(x, y) - _kernel_trace(x, y)) / (n * (n - 1)) if paired else _kernel_sum(x, y) / (m * n)
    return within - 2 * across


def _squared_distances(x: Features, y: Features) -> Features:
    """(N, M), to a rounding error of :data:`ROUNDING` times the largest squared length."""
    found: Features = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    return np.maximum(found, 0.0, out=found)


def _squared_radii(x: Features, k: int) -> Features:
    """(N,) squared distance of each point to its k-th nearest other one."""
    radii = np.empty(len(x))
    for part in _row_blocks(len(x), len(x)):
        distances = _squared_distances(x[part], x)
        here = np.arange(len(distances))
        distances[here, part.start + here] = np.inf
        radii[part] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def _inside(points: Features, of: Features, k: int) -> NDArray[np.bool_]:
    """Whether each point is as near to one of ``of`` as that one's k-th nearest other is; equality, up to rounding, counts."""
    middle = of.mean(0)
    points, of = points - middle, of - middle
    slack = ROUNDING * max(float((x * x).sum(1).max()) for x in (points, of))
    reach = _squared_radii(of, k) + slack
    return np.concatenate([(_squared_distances(points[part], of) <= reach).any(1) for part in _row_blocks(len(points), len(of))])


def realistic(*, real: ArrayLike, generated: ArrayLike, k: int = 3) -> NDArray[np.bool_]:
    """Which generated images lie inside the manifold of the real ones; their share is the precision.

    The manifold is the union of balls around the real images, each as large as the distance to its k-th nearest other real image.

    Args:
        real: (M, D) features of the reference, M > k.
        generated: (N, D) of the model's images, N >= 1.
        k: at least 1.

    Returns:
        (N,)

    Raises:
        UndefinedError: too few images, or features that are no finite numbers.
    """
    x, y = _checked(f"precision with k={k}", real, generated, k + 1, 1)
    return _inside(y, x, k)


def covered(*, real: ArrayLike, generated: ArrayLike, k: int = 3) -> NDArray[np.bool_]:
    """Which real images lie inside the manifold of the generated ones; their share is the recall.

    Args:
        real: (M, D) features of the reference, M >= 1.
        generated: (N, D) of the model's images, N > k.
        k: at least 1.

    Returns:
        (M,)

    Raises:
        UndefinedError: too few images, or features that are no finite numbers.
    """
    x, y = _checked(f"recall with k={k}", real, generated, 1, k + 1)
    return _inside(x, y, k)


def blocks(clusters: Sequence[str], count: int) -> list[NDArray[np.int64]]:
    """Deals images to disjoint blocks of nearly the same number of prompts; the images of one prompt stay together.

    Prompts are dealt in the order of their hashes, which is as good as at random: in the order of the rows a block might hold one
    concept only, because sets often take their concepts in turn, and blocks that are more alike than chance would make the interval of
    KID too narrow.

    Args:
        clusters: the prompt of each image.
        count: how many blocks.

    Returns:
        Row numbers of each block; blocks are empty if there are fewer prompts.
    """
    order = sorted(set(clusters), key=lambda c: hashlib.sha256(c.encode()).digest())
    block_of = {c: i % count for i, c in enumerate(order)}
    where = np.array([block_of[c] for c in clusters], np.int64)
    return [np.flatnonzero(where == b) for b in range(count)]


def t_interval(value: float, of_blocks: Sequence[float]) -> tuple[float, float]:
    """Limits at 95 % around a value from its values on disjoint blocks: Student's t with their standard error.

    Args:
        value: of everything together.
        of_blocks: at least 2.
    """
    b = len(of_blocks)
    half = float(t975(b - 1)) * float(np.std(of_blocks, ddof=1)) / math.sqrt(b)
    return value - half, value + half
