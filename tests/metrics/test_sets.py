from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from conceptbench.core import feature_sets
from conceptbench.core.feature_sets import UndefinedError, blocks, covered, fid, kid, realistic, t_interval
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Sample, Scored
from conceptbench.core.protocols import presets_of
from conceptbench.core.schemas import Concept
from conceptbench.core.statistics import paired_difference, rate_interval, wilson
from conceptbench.metrics.sets import FID, KID, Precision, Recall

JUDGE = JudgeCard("inception-tf", "features", "0" * 64, "", "", "", {})
CAT = Concept(name="cat", kind="object", phrases=("a cat",))
ALL = (FID, KID, Precision, Recall)
DRAWN = {"beside": "mini-drawings", "n": 40}


def draws(n, d, seed=0, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(n, d))


def sample(values, name="p", each=1):
    return Sample(np.asarray(values), [f"{name}{i // each}" for i in range(len(values))])


def made(kind, **options):
    return kind(kind.Config(**options), JUDGE)


# -- FID -------------------------------------------------------------------------------------------------------------
def theirs(a, b):
    one, other = (fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b))
    return fid_statistics_to_metric(one, other, False)["frechet_inception_distance"]


@pytest.mark.parametrize(("n", "m"), [(90, 120), (60, 40), (25, 200)])
def test_fid_is_torch_fidelitys(n, m):
    a, b = np.abs(draws(n, 16)), np.abs(draws(m, 16, 1, 0.3, 1.5))
    assert fid(real=b, generated=a) == pytest.approx(theirs(a, b), abs=1e-4)
    assert fid(real=b, generated=a) == pytest.approx(fid(real=a, generated=b), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(12, 20), (12, 90), (90, 12), (2, 2)])
def test_fid_of_fewer_images_than_features(n, m):
    a, b = np.abs(draws(n, 48)), np.abs(draws(m, 48, 1, 0.3, 1.5))
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0]).real  # of a matrix without full rank, but symmetric: (S1^½ S2 S1^½)^½ has the trace of (S1 S2)^½
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    gap = a.mean(0) - b.mean(0)
    expected = gap @ gap + sum(np.trace(c) for c in covariances) - 2 * shared
    assert fid(real=b, generated=a) == pytest.approx(expected, rel=1e-4)
    assert fid(real=b, generated=a) == pytest.approx(theirs(a, b), rel=1e-3)


def test_fid_in_one_dimension_is_a_closed_form():
    a, b = draws(7, 1), draws(9, 1, 1, 3.0, 2.0)
    assert fid(real=a, generated=b) == pytest.approx((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2, rel=1e-12)


class Flat(torch.nn.Module):
    """A feature extractor for torchmetrics that gives the pixels."""

    num_features = 12

    def forward(self, images):
        return images.flatten(1).double()


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_fid_and_kid_are_torchmetrics():
    images = torch.randint(0, 256, (2, 50, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[1] = (images[1] / 2).to(torch.uint8)
    whole, kernel = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 2, 2)), KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=50)
    for metric in (whole, kernel):
        metric.update(images[0], real=True)
        metric.update(images[1], real=False)
    real, generated = (x.flatten(1).double().numpy() for x in images)
    assert fid(real=real, generated=generated) == pytest.approx(float(whole.compute()), rel=1e-6)
    assert kid(real=real, generated=generated) == pytest.approx(float(kernel.compute()[0]), rel=1e-6)


def test_equal_sets_are_at_zero_and_all_images_equal_is_no_failure():
    x, black = draws(30, 5), np.zeros((10, 5))
    assert fid(real=x, generated=x[::-1]) == pytest.approx(0, abs=1e-12) and fid(real=black, generated=black) == 0
    spread = np.cov(x, rowvar=False).trace()
    assert fid(real=x, generated=black) == pytest.approx((x.mean(0) ** 2).sum() + spread, rel=1e-12)
    assert kid(real=black, generated=black) == pytest.approx(0, abs=1e-15)
    assert realistic(real=black, generated=black).all() and covered(real=black, generated=black).all()
    assert not realistic(real=black, generated=black + 1e-3).any()


# -- KID -------------------------------------------------------------------------------------------------------------
def by_loops(real, generated, paired=False):
    def k(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def mean(values):
        values = list(values)
        return math.fsum(values) / len(values)

    same = [mean(k(x, y) for x, y in itertools.permutations(rows, 2)) for rows in (real.tolist(), generated.tolist())]
    across = mean(k(x, y) for i, x in enumerate(real.tolist()) for j, y in enumerate(generated.tolist()) if not (paired and i == j))
    return sum(same) - 2 * across


def test_kid_is_the_formula_number_by_number(monkeypatch):
    x, y = draws(7, 3), draws(11, 3, 1, 0.4)
    assert kid(real=x, generated=y) == pytest.approx(by_loops(x, y), rel=1e-10)
    assert kid(real=x, generated=y[:7], paired=True) == pytest.approx(by_loops(x, y[:7], paired=True), rel=1e-10)
    monkeypatch.setattr(feature_sets, "CELLS", 22)  # two rows at a time
    assert kid(real=x, generated=y) == pytest.approx(by_loops(x, y), rel=1e-10)


@pytest.mark.parametrize("d", [8, 200])
def test_kid_is_torch_fidelitys(d):
    a, b = draws(60, d), draws(60, d, 1, 0.2, 1.2)
    one = kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=60, verbose=False)
    assert kid(real=b, generated=a) == pytest.approx(one["kernel_inception_distance_mean"], abs=1e-8)


def test_kid_is_unbiased_and_of_pairs_only_without_partners():
    found = {"independent": [], "pairs": [], "pairs as if independent": []}
    for seed in range(400):
        x, own, noise = draws(10, 4, 3 * seed), draws(10, 4, 3 * seed + 1), draws(10, 4, 3 * seed + 2)
        found["independent"].append(kid(real=x, generated=own))
        y = 0.9 * x + math.sqrt(1 - 0.81) * noise  # distributed as x is
        found["pairs"].append(kid(real=x, generated=y, paired=True))
        found["pairs as if independent"].append(kid(real=x, generated=y))
    z = {name: np.mean(v) / (np.std(v) / 20) for name, v in found.items()}
    assert abs(z["independent"]) < 3 and abs(z["pairs"]) < 3 and z["pairs as if independent"] < -10
    with pytest.raises(ValueError, match="4 generated images and 5 real"):
        kid(real=draws(5, 2), generated=draws(4, 2), paired=True)


def test_blocks_are_disjoint_whole_and_keep_prompts_together():
    clusters = [f"p{i // 3}" for i in range(30)]
    found = blocks(clusters, 4)
    assert sorted(np.concatenate(found).tolist()) == list(range(30)) and {len(b) for b in found} == {6, 9}
    assert all(len({clusters[i] for i in b}) * 3 == len(b) for b in found)
    assert [b.tolist() for b in found] == [b.tolist() for b in blocks(clusters, 4)]
    turns = [i % 4 for i in range(400)]  # concepts in turn
    assert all(len({turns[i] for i in b}) == 4 for b in blocks([f"r{i}" for i in range(400)], 4))
    assert [len(b) for b in blocks(["a", "a"], 3)] == [2, 0, 0]


def test_interval_of_blocks_covers():
    assert t_interval(5.0, [1.0, 3.0]) == pytest.approx((5 - 12.7062047, 5 + 12.7062047))
    inside, clusters = 0, ([f"r{i}" for i in range(60)], [f"p{i}" for i in range(40)])
    shift = 0.8
    truth = np.mean([kid(real=draws(800, 6, 5000 + s), generated=draws(800, 6, 6000 + s, shift)) for s in range(8)])
    for seed in range(300):
        x, y = draws(60, 6, 2 * seed), draws(40, 6, 2 * seed + 1, shift)
        parts = [kid(real=x[i], generated=y[j]) for i, j in zip(blocks(clusters[0], 5), blocks(clusters[1], 5), strict=True)]
        low, high = t_interval(kid(real=x, generated=y), parts)
        inside += low <= truth <= high
    assert inside >= 279  # 93 %


# -- precision and recall --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shape", [(60, 90, 4), (30, 20, 100)])
def test_precision_and_recall_are_torch_fidelitys(k, shape):
    n, m, d = shape
    a, b = draws(n, d), draws(m, d, 1, 0.3, 1.3)
    found = prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), prc_neighborhood=k, verbose=False)  # generated first
    assert realistic(real=b, generated=a, k=k).mean() == pytest.approx(found["precision"], abs=1e-6)
    assert covered(real=b, generated=a, k=k).mean() == pytest.approx(found["recall"], abs=1e-6)


def test_which_way_round():
    narrow, wide = draws(300, 3, 0, 0.0, 0.3), draws(300, 3, 1)
    precision, recall = realistic(real=wide, generated=narrow).mean(), covered(real=wide, generated=narrow).mean()
    assert precision > 0.95 and recall < 0.3
    assert (realistic(real=narrow, generated=wide).mean(), covered(real=narrow, generated=wide).mean()) == (recall, precision)
    real = np.array([[0.0], [1], [2], [3], [100], [101], [102], [103]])  # two kinds of pictures, of which the model makes one
    generated = np.array([[0.5], [1.5], [2.5], [2.0]])
    assert realistic(real=real, generated=generated, k=1).all()
    assert covered(real=real, generated=generated, k=1).tolist() == [True] * 4 + [False] * 4
    outlier = np.append(generated, [[60]], 0)  # its ball of 57.5 swallows the rest
    assert realistic(real=real, generated=outlier, k=1).tolist() == [True] * 4 + [False] and covered(real=real, generated=outlier, k=1).all()


def test_equality_at_the_edge_counts_and_blocks_of_rows_change_nothing(monkeypatch):
    real = np.array([[0.0, 0], [3, 4], [30, 40]])
    assert realistic(real=real, generated=[[-3, -4], [-3.001, -4]], k=1).tolist() == [True, False]
    duplicates = np.repeat(draws(40, 333), 4, 0).astype(np.float32)  # three others at the same place: balls of radius 0
    assert all(realistic(real=duplicates, generated=duplicates[i : i + 1]).all() for i in range(0, 160, 4))  # sums in another order
    assert realistic(real=duplicates, generated=duplicates[::4]).all() and not realistic(real=duplicates, generated=duplicates[::4] + 1e-3).any()
    x, y = draws(23, 4), draws(31, 4, 1)
    whole = realistic(real=x, generated=y), covered(real=x, generated=y)
    assert not whole[0].all() and np.array_equal(realistic(real=x + 1e6, generated=y + 1e6), whole[0])  # far from the origin, the same
    monkeypatch.setattr(feature_sets, "CELLS", 50)
    assert all(np.array_equal(a, b) for a, b in zip(whole, (realistic(real=x, generated=y), covered(real=x, generated=y)), strict=True))


@pytest.mark.parametrize(
    ("function", "real", "generated", "said"),
    [
        (fid, 1, 9, "FID needs at least 2 generated and 2 real images, got 9 and 1"),
        (kid, 9, 1, "KID needs at least 2 generated and 2 real images, got 1 and 9"),
        (realistic, 3, 9, "at least 1 generated and 4 real images, got 9 and 3"),
        (covered, 9, 3, "at least 4 generated and 1 real images, got 3 and 9"),
        (covered, 0, 9, "got 9 and 0"),
    ],
)
def test_too_few_images(function, real, generated, said):
    with pytest.raises(UndefinedError, match=said):
        function(real=draws(real, 3), generated=draws(generated, 3))


@pytest.mark.parametrize("function", [fid, kid, realistic, covered])
def test_features_that_are_no_numbers(function):
    x, y = draws(9, 3), draws(9, 3)
    y[4, 1] = np.nan
    y[5] = np.inf
    with pytest.raises(UndefinedError, match="2 of 9 generated images"):
        function(real=x, generated=y)
    with pytest.raises(UndefinedError, match="2 of 9 real images"):
        function(real=y, generated=x)
    with pytest.raises(ValueError, match=r"\(9, 3\) and \(9, 2\)"):
        function(real=x[:, :2], generated=x)
    with pytest.raises(TypeError):
        function(x, x)


# -- the metrics -----------------------------------------------------------------------------------------------------
def test_protocols_directions_and_reading():
    assert [made(m).protocol for m in ALL] == [
        "fid@frechet-beside-base/inception-tf",
        "kid@poly3-pairs-beside-base/inception-tf",
        "precision@k3-beside-base/inception-tf",
        "recall@k3-beside-base/inception-tf",
    ]
    assert made(KID, **DRAWN).arithmetic == "poly3-beside-mini-drawings-40" and made(KID, pairs=False).arithmetic == "poly3-beside-base"
    assert made(Precision, beside="/data/COCO val 2014/", k=5).arithmetic == "k5-beside-coco-val-2014-all"
    assert [made(m).better("retained") for m in ALL] == ["lower", "lower", "higher", "higher"]
    assert {made(m).better("target") for m in ALL} == {"neither"}
    assert [made(m).unit for m in ALL] == ["distance", "distance", "rate", "rate"]
    for metric in (made(m, **DRAWN) for m in ALL):
        assert (metric.beside, metric.reference_size, metric.role, metric.each_concept) == ("mini-drawings", 40, "features", False)
        assert metric.applies(CAT, "target") and metric.summary and metric.reference and metric.failure_modes
        scored = Scored(Asked(CAT, "target", "p"), {"features": np.arange(3, dtype=np.float32)})
        assert metric.reading(scored, None).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("options", "said"),
    [({"n": 10}, "the base has as many images"), ({"beside": "others"}, "no reference"), ({"beside": "x", "n": 1}, "greater"), ({"besides": "x"}, "Extra")],
)
def test_options_that_are_wrong(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind.Config(**options)


@pytest.mark.parametrize("kind", ALL)
def test_undefined_says_why(kind):
    metric, good = made(kind, **DRAWN), sample(draws(40, 3), "reference-")
    none = metric.estimate(generated=Sample(np.zeros((0, 1)), []), real=good)
    assert none.value is None and "got 0 and 40" in none.reason and (none.planned, none.scored) == (0, 0)
    broken = draws(40, 3)
    broken[7] = np.nan
    found = metric.estimate(generated=sample(broken), real=good)
    assert found.value is None and "1 of 40 generated images" in found.reason and (found.low, found.scored, found.clusters) == (None, 40, 40)
    assert metric.difference(generated=sample(broken), base=good, real=good).value is None
    assert metric.per_image(generated=sample(broken), real=good) is None


def test_fid_has_a_spread_and_no_interval():
    metric, generated, real = made(FID, **DRAWN), sample(draws(60, 8)), sample(draws(40, 8, 1), "r")
    found = metric.estimate(generated=generated, real=real)
    parts = zip(blocks(generated.clusters, 4), blocks(real.clusters, 4), strict=True)
    expected = np.std([theirs(generated.values[i], real.values[j]) for i, j in parts])
    assert found.value == pytest.approx(theirs(generated.values, real.values), rel=1e-6) and found.spread == pytest.approx(expected, rel=1e-6)
    assert (found.low, found.high, found.kind, found.spread_kind, found.reason) == (None, None, "none: biased in the number of images", "4 disjoint splits", "")
    base = sample(draws(60, 8, 2))
    delta = metric.difference(generated=generated, base=base, real=real)
    assert delta.value == pytest.approx(found.value - metric.estimate(generated=base, real=real).value) and delta.low is None
    few = metric.estimate(generated=sample(draws(7, 8)), real=real)
    assert few.spread is None and few.spread_kind == "" and few.value > 0 and few.reason == "7 images for 8 features: most of the value may be bias"


def test_kid_has_an_interval_by_blocks():
    metric, generated, real = made(KID, **DRAWN), sample(draws(60, 8, 0, 0.5), each=2), sample(draws(40, 8, 1), "r")
    found = metric.estimate(generated=generated, real=real)
    parts = [by_loops(real.values[j], generated.values[i]) for i, j in zip(blocks(generated.clusters, 5), blocks(real.clusters, 5), strict=True)]
    half = 2.7764451 * np.std(parts, ddof=1) / math.sqrt(5)
    assert found.value == pytest.approx(kid(real=real.values, generated=generated.values))
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half)) and found.spread == pytest.approx(np.std(parts))
    assert (found.kind, found.spread_kind, found.clusters, found.scored) == ("t over 5 disjoint blocks", "5 disjoint blocks", 30, 60)
    few = metric.estimate(generated=sample(draws(19, 8)), real=real)
    assert few.low is None and few.kind == "none: 19 and 40 images are too few for 5 blocks" and few.value is not None and few.spread is None


def test_the_difference_of_kid_is_paired_by_blocks():
    real, base = sample(draws(40, 8, 1), "r"), sample(draws(60, 8, 2))
    metric, near = made(KID, **DRAWN), Sample(base.values + draws(60, 8, 3, 0.0, 0.01), base.clusters)
    delta = metric.difference(generated=near, base=base, real=real)
    alone = metric.estimate(generated=near, real=real)
    assert delta.value == pytest.approx(alone.value - metric.estimate(generated=base, real=real).value)
    assert delta.low < delta.value < delta.high and delta.high - delta.low < 0.2 * (alone.high - alone.low)
    parts = [
        by_loops(real.values[j], near.values[i]) - by_loops(real.values[j], base.values[i])
        for i, j in zip(blocks(base.clusters, 5), blocks(real.clusters, 5), strict=True)
    ]
    assert delta.high - delta.value == pytest.approx(2.7764451 * np.std(parts, ddof=1) / math.sqrt(5))
    few = Sample(base.values[:10], base.clusters[:10])
    assert metric.difference(generated=few, base=few, real=real).model_dump() == {"value": 0, "low": None, "high": None}


def test_kid_beside_the_base_is_of_pairs():
    base = sample(draws(40, 8))
    same = made(KID).estimate(generated=base, real=base)
    assert same.value == pytest.approx(0, abs=1e-12) and made(KID, pairs=False).estimate(generated=base, real=base).value < -0.01
    moved = made(KID).estimate(generated=Sample(base.values + 0.5, base.clusters), real=base)
    assert moved.value == pytest.approx(by_loops(base.values, base.values + 0.5, paired=True)) and moved.low is not None
    missing = made(KID).estimate(generated=Sample(base.values[1:], base.clusters[1:]), real=base)
    assert missing.value is None and "39 images and 40 of the base are not pairs" in missing.reason


def test_precision_is_a_rate_of_images():
    metric, generated, real = made(Precision, **DRAWN), sample(draws(60, 3, 0, 0.0, 1.6), each=2), sample(draws(40, 3, 1), "r")
    values = realistic(real=real.values, generated=generated.values).astype(float)
    found, per_image = metric.estimate(generated=generated, real=real), metric.per_image(generated=generated, real=real)
    interval = rate_interval(values, generated.clusters)
    assert per_image.tolist() == values.tolist() and found.value == pytest.approx(values.mean()) and 0.2 < found.value < 0.9
    assert (found.low, found.high, found.kind) == (interval.low, interval.high, "wilson-clustered") and (found.scored, found.clusters) == (60, 30)
    base = Sample(draws(60, 3, 2), generated.clusters)
    delta = metric.difference(generated=generated, base=base, real=real)
    value, expected = paired_difference(values, realistic(real=real.values, generated=base.values).astype(float), generated.clusters, rate=True)
    assert (delta.value, delta.low, delta.high) == (value, expected.low, expected.high) and delta.value < 0


def test_recall_is_a_rate_of_reference_images():
    metric, generated, real = made(Recall, **DRAWN), sample(draws(60, 3, 0, 0.0, 0.3)), sample(draws(40, 3, 1), "r")
    inside = covered(real=real.values, generated=generated.values)
    found = metric.estimate(generated=generated, real=real)
    assert found.value == pytest.approx(inside.mean()) and (found.low, found.high) == pytest.approx(wilson(inside.sum(), 40), abs=0.01)
    assert found.kind == "wilson over 40 reference images, the others fixed" and (found.scored, found.planned, found.clusters) == (60, 60, 60)
    assert made(Recall, **DRAWN, k=1).estimate(generated=generated, real=real).value < found.value
    assert metric.per_image(generated=generated, real=real) is None
    base = sample(draws(60, 3, 2))
    delta = metric.difference(generated=generated, base=base, real=real)
    value, expected = paired_difference(inside.astype(float), covered(real=real.values, generated=base.values).astype(float), real.clusters, rate=True)
    assert (delta.value, delta.low, delta.high) == (value, expected.low, expected.high) and delta.value < -0.3


def test_one_prompt_and_black_images_have_no_width_of_zero():
    black, real = sample(np.zeros((30, 3))), sample(draws(40, 3, 1, 5.0), "r")
    for kind in (Precision, Recall):
        found = made(kind, **DRAWN).estimate(generated=black, real=real)
        assert (found.value, found.low) == (0, 0) and found.high > 0.05
    one = made(Precision, **DRAWN).estimate(generated=sample(draws(30, 3), each=30), real=real)
    assert one.low is None and one.kind == "none: one prompt only"


# -- presets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ALL)
def test_presets(kind):
    presets = presets_of(kind.name)
    assert next(iter(presets)) == "default" and "mini" in presets
    for preset in presets.values():
        assert made(kind, **preset.options).arithmetic and preset.judge in ("inception-clean", "inception-tf", "mini-features") and preset.note
