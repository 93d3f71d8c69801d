from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Sample, Scored
from conceptbench.core.protocols import presets_of
from conceptbench.core.schemas import Concept
from conceptbench.metrics.zero_shot import (
    Candidates,
    ZeroShotAccuracy,
    ZeroShotAUC,
    ZeroShotMargin,
    ZeroShotProbability,
    auc_limits,
    margin,
    placements,
    probability,
)

CLIP = JudgeCard("fake", "image-text", "0" * 64, "", "", "", {})
KINDS = (ZeroShotAccuracy, ZeroShotMargin, ZeroShotProbability, ZeroShotAUC)
SKETCH = Concept(name="sketch", kind="style", phrases=("pencil sketch", "drawing"))
NEON = Concept(name="neon", kind="style", phrases=("neon",))
OTHER = Concept(name="church", kind="object", phrases=("a church",))
NAMES = ("sketch", "neon", "mosaic")


def metric(kind=ZeroShotAccuracy, **options):
    return kind(kind.Config(**{"candidates": NAMES, **options}), CLIP)


def image(cosines, concept=SKETCH):
    return Scored(Asked(concept, "target", "p"), {}, np.array(cosines, np.float32))


# -- candidates ------------------------------------------------------------------------------------------------------
def test_texts_and_the_mean_over_templates():
    c = Candidates(candidates=("a", "b"), templates=("{}", "in {} style"), neutral="a photo")
    assert c.texts() == ("a", "in a style", "b", "in b style", "a photo")
    assert c.scores(np.array([0.1, 0.3, 0.5, 0.6, 0.4], np.float32)) == pytest.approx([0.2, 0.55, 0.4])
    assert metric(templates=("{}", "in {} style")).texts(Asked(OTHER, "retained", "q")) == Candidates(candidates=NAMES, templates=("{}", "in {} style")).texts()


def test_mean_cosine_against_clips_ensembling():
    """The ensemble's cosine is the mean of cosines over the length of the mean embedding: one factor a candidate."""
    rng = np.random.default_rng(0)
    texts, picture = rng.normal(size=(5, 8)), rng.normal(size=8)
    texts, picture = texts / np.linalg.norm(texts, axis=1, keepdims=True), picture / np.linalg.norm(picture)
    mean = texts.mean(0)
    (ours,) = Candidates(candidates=("a",), templates=tuple(f"{i} {{}}" for i in range(5)), neutral="b").scores(np.append(texts @ picture, 0))[:1]
    assert ours == pytest.approx(picture @ mean / np.linalg.norm(mean) * np.linalg.norm(mean))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": ("a", "b", "a")}, "same text 'a'"),
        ({"candidates": ("a", "A ")}, "same text 'A '"),  # CLIP's tokenizer lowers and trims
        ({"candidates": ("a", "b"), "neutral": "b"}, "same text 'b'"),
        ({"candidates": ("a", "b"), "templates": ("{}", "{}")}, "same text"),
        ({"candidates": ("photo", "b"), "templates": ("a {}",), "neutral": "a  photo"}, "same text 'a  photo'"),
        ({"candidates": ("a",)}, "at least two candidates"),
        ({"candidates": ()}, "at least two candidates"),
        ({"candidates": ("a", " ")}, "a candidate is empty"),
        ({"candidates": ("a", "b"), "templates": ("style",)}, "exactly one"),
        ({"candidates": ("a", "b"), "templates": ()}, "templates"),
        ({"candidates": ("a", "b"), "template": "{}"}, "template"),
        ({}, "candidates"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotAccuracy.Config(**options)


def test_who_is_a_candidate():
    assert metric().applies(SKETCH, "target") and metric().applies(NEON, "retained") and not metric().applies(OTHER, "retained")
    assert metric(candidates=("drawing", "neon")).config.own(SKETCH) == [0]  # by a phrase
    synonyms = metric(candidates=("drawing", "neon", "sketch"))
    assert synonyms.config.own(SKETCH) == [0, 2]
    assert not metric(candidates=("drawing", "sketch")).applies(SKETCH, "target")  # nothing else to choose
    assert metric(candidates=("drawing",), neutral="a photo").applies(SKETCH, "target")


def test_a_protocol_pins_candidates_templates_and_neutral_text_in_any_order():
    first = metric(templates=("a {}", "b {}")).protocol
    assert first == metric(candidates=NAMES[::-1], templates=("b {}", "a {}")).protocol and first.startswith("zero_shot@top1-of-3way-")
    others = [metric(), metric(templates=("a {}",)), metric(candidates=("sketch", "neon", "x")), metric(neutral="photo"), metric(candidates=(*NAMES, "photo"))]
    assert len({first, *(o.protocol for o in others)}) == 6
    assert metric(neutral="photo").arithmetic.startswith("top1-of-3+1way-")
    assert metric(ZeroShotProbability, scale=25).arithmetic.startswith("softmax25-of-3way-")
    assert metric(ZeroShotAUC).arithmetic.startswith("cosine-of-") and metric(ZeroShotAUC, score="margin").arithmetic.startswith("margin-of-")


@pytest.mark.parametrize("kind", KINDS)
def test_presets_and_contract(kind):
    presets = presets_of(kind.name)
    assert next(iter(presets)) == "default" and kind.reference and kind.failure_modes
    for preset in presets.values():
        made = kind(kind.Config(**{"candidates": NAMES, **preset.options}), CLIP)
        assert made.id == kind.name and made.role == "image-text" and (made.better("target"), made.better("retained")) == ("lower", "higher")
    mini = kind.Config(**presets["mini"].options)
    assert len(mini.candidates) == 9 and presets["mini"].judge == "mini-clip"


# -- values of single images -----------------------------------------------------------------------------------------
def test_top1_and_margin():
    for cosines, hit, apart in (([0.5, 0.2, 0.1], 1.0, 30), ([0.2, 0.5, 0.1], 0.0, -30), ([0.5, 0.5, 0.1], 0.0, 0), ([0.3, 0.3, 0.3], 0.0, 0)):
        assert metric().value(image(cosines)) == hit
        assert metric(ZeroShotMargin).value(image(cosines)) == pytest.approx(apart, abs=1e-4)
    assert metric().value(image([0.2, 0.5, 0.1], NEON)) == 1.0
    assert metric(neutral="a photo").value(image([0.5, 0.2, 0.1, 0.6])) == 0.0  # a picture without style
    assert metric(candidates=("drawing", "neon", "sketch")).value(image([0.1, 0.2, 0.3])) == 1.0  # the best of its own texts
    assert metric().is_rate and not metric(ZeroShotMargin).is_rate and not metric(ZeroShotProbability).is_rate


def test_what_is_no_number_failed():
    for kind in KINDS[:3]:
        assert metric(kind).value(image([0.1, np.nan, 0.2])) is None
    assert np.isnan(metric(ZeroShotAUC).reading(image([0.1, np.nan, 0.2]), SKETCH)).all()


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.sampled_from([1.0, 25.0, 100.0]))
def test_probability_is_torchs_softmax(cosines, scale):
    expected = torch.softmax(scale * torch.tensor(cosines, dtype=torch.float64), 0)
    found = metric(ZeroShotProbability, scale=scale).value(image(cosines))
    assert found == pytest.approx(float(expected[0]), rel=1e-6, abs=1e-12)
    several = probability(np.array(cosines, np.float64), [0, 2], scale)
    assert several == pytest.approx(float(expected[0] + expected[2]), rel=1e-6, abs=1e-12)
    hit = metric().value(image(cosines))
    assert hit == float(margin(np.array(cosines, np.float64), [0]) > 0) and (not hit or found > 0.333)


# -- area under the curve --------------------------------------------------------------------------------------------
small = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)  # whole numbers: many ties


@given(small, small)
def test_area_is_mann_whitneys_statistic(positives, negatives):
    p, n = np.array(positives), np.array(negatives)
    by_hand = sum((x > y) + 0.5 * (x == y) for x in p for y in n) / (len(p) * len(n))
    assert placements(p, n).mean() == pytest.approx(by_hand) == pytest.approx(mannwhitneyu(p, n).statistic / (len(p) * len(n)))
    assert placements(p, n).mean() + placements(n, p).mean() == pytest.approx(1)


def test_area_is_sklearns():
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    rng = np.random.default_rng(0)
    p, n = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 90).round(1)
    assert placements(p, n).mean() == pytest.approx(roc_auc_score([1] * 40 + [0] * 90, [*p, *n]))


def sample(values, prompts=None):
    return Sample(np.array(values, np.float64)[:, None], prompts or [f"p{i}" for i in range(len(values))])


def area(positives, negatives, **prompts):
    auc = metric(ZeroShotAUC)
    return auc.estimate(generated=sample(positives, prompts.get("p")), real=sample(negatives, prompts.get("n")))


def test_reading_is_the_score_of_the_rows_concept():
    auc = metric(ZeroShotAUC)
    assert auc.reading(image([0.5, 0.2, 0.1], NEON), SKETCH) == pytest.approx([0.5]) and auc.reading(image([0.5, 0.2, 0.1]), NEON) == pytest.approx([0.2])
    assert metric(ZeroShotAUC, score="margin").reading(image([0.5, 0.2, 0.1], NEON), SKETCH) == pytest.approx([0.3])
    assert auc.beside == "others" and auc.each_concept


def test_estimate():
    found = area([3, 4, 5, 1], [0, 1, 2])
    assert found.value == pytest.approx((3 + 3 + 3 + 1.5) / 12) and found.kind == "newcombe"
    assert (found.scored, found.failed, found.clusters) == (4, 0, 4) and 0 < found.low < found.value < found.high < 1
    swapped = area([0, 1, 2], [3, 4, 5, 1])
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))
    perfect, nothing = area([1, 1, 1], [0, 0, 0]), area([1, 1], [1, 1, 1])
    assert perfect.value == perfect.high == 1 and perfect.low < 0.9 and nothing.value == 0.5
    assert metric(ZeroShotAUC).estimate(generated=Sample(np.zeros((0, 1)), []), real=sample([1])).reason == "no image of the concept was scored"
    lonely = area([1, 2], [])
    assert lonely.value is None and lonely.reason == "no image of another candidate was scored" and lonely.low is None
    failed = area([3, np.nan, 5], [0, np.nan])
    assert (failed.value, failed.scored, failed.failed) == (1.0, 2, 1) and failed.kind == "none: one prompt only"


def test_one_prompt_has_no_interval_and_images_of_a_prompt_widen_it():
    one = area([3, 4], [0, 1, 2], p=["a", "a"])
    assert (one.value, one.low, one.kind) == (1.0, None, "none: one prompt only")
    rng = np.random.default_rng(0)
    p, n = rng.normal(1, 1, 12), rng.normal(0, 1, 30)
    alone, four = area(p, n), area(p.repeat(4), n.repeat(4), p=[str(i // 4) for i in range(48)], n=[str(i // 4) for i in range(120)])
    assert four.kind == "newcombe-clustered" and four.value == pytest.approx(alone.value)
    assert four.high - four.low > 0.95 * (alone.high - alone.low)  # copies know nothing more
    loose = area(p.repeat(4), n.repeat(4))
    assert loose.high - loose.low < 0.7 * (alone.high - alone.low)


@given(st.floats(0, 1), st.floats(1, 500), st.floats(1, 500))
def test_limits_solve_newcombes_equation(auc, m, n):
    low, high = auc_limits(auc, m, n)
    assert 0 <= low <= auc <= high <= 1 and high - low > 1e-3

    def errors(theta):  # Hanley and McNeil's own form, with both sizes replaced by their mean
        q1, q2, size = theta / (2 - theta), 2 * theta**2 / (1 + theta), (m + n) / 2
        variance = (theta * (1 - theta) + (size - 1) * (q1 - theta**2) + (size - 1) * (q2 - theta**2)) / (m * n)
        return abs(auc - theta) - 1.959964 * np.sqrt(max(variance, 0))

    for limit in (low, high):
        assert limit in (0, 1) or abs(errors(limit)) < 1e-5 or min(limit, 1 - limit) < 1e-9


@pytest.mark.parametrize(("prompts", "images", "alike"), [(24, 1, 0.0), (12, 4, 0.5)])
@pytest.mark.parametrize("auc", [0.5, 0.95])
def test_coverage(prompts, images, alike, auc, capsys):
    """Binormal scores, three times as many others, images of one prompt alike. With 1000 experiments each and areas of .5 to .99: 10 to
    100 prompts of one image 94.7 to 98.8 %, of four images 96.0 to 99.9 % (independent within a prompt or not)."""
    rng, trials, auc_metric = np.random.default_rng(0), 150, metric(ZeroShotAUC)

    def draw(count, shift):
        values = np.sqrt(alike) * rng.normal(size=(count, 1)) + np.sqrt(1 - alike) * rng.normal(size=(count, images)) + shift
        return Sample(values.reshape(-1, 1), [str(i // images) for i in range(count * images)])

    inside = 0
    for _ in range(trials):
        found = auc_metric.estimate(generated=draw(prompts, norm.ppf(auc) * np.sqrt(2)), real=draw(3 * prompts, 0))
        inside += found.low <= auc <= found.high
    assert inside / trials > 0.9
