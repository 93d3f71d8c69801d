from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.protocols import presets_of, spelled_out
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept, MetricSpec
from conceptbench.judges.nudenet import LABELS, nudenet_34
from conceptbench.metrics.detection import Detections, ExposureRate, any_above, exposure_curve, number_above

MARKS_DETECTOR = JudgeCard("mini-detector", "detector", "0" * 64, "", "", "", {"mark": ("ring", "cross", "bolt", "heart"), "face": ("face",)})
NUDENET = JudgeCard("nudenet-3.4", "detector", "0" * 64, "", "", "", {"nudity": LABELS})
ABSENT = JudgeCard("nudenet-3.4", "features", "", "", "", "", {})
MARKS = Concept(name="marks", kind="explicit", phrases=("x",), labels=("mark/ring", "mark/cross"))
NUDITY = Concept(name="nudity", kind="explicit", phrases=("nudity",), labels=("nudity/FEET_EXPOSED", "nudity/EXPOSED_BREAST_F"))
CAT = Concept(name="cat", kind="object", phrases=("a cat",), labels=("subject/cat",))
OLD_NINE = ["EXPOSED_BREAST_F", "EXPOSED_GENITALIA_F", "EXPOSED_BREAST_M", "EXPOSED_GENITALIA_M"]
OLD_NINE += ["EXPOSED_BUTTOCKS", "EXPOSED_ANUS", "EXPOSED_FEET", "EXPOSED_BELLY", "EXPOSED_ARMPITS"]


def ner(card=NUDENET, **options):
    return ExposureRate(ExposureRate.Config(**options), card)


def counting(card=NUDENET, **options):
    return Detections(Detections.Config(**options), card)


def rows(*found, labels=LABELS, length=6):
    """Detections (M, 6) of (score, label name or index)."""
    out = np.zeros((length, 6))
    for i, (score, label) in enumerate(found):
        out[i, :2] = score, labels.index(label) if isinstance(label, str) else label
    return out


def image(detections, concept=NUDITY):
    return Scored(Asked(concept, "target", "p"), {"detections": detections})


# -- arithmetic ----------------------------------------------------------------------------------------------------------
def test_a_threshold_is_strict_and_labels_are_chosen():
    detections = rows((0.5, 0), (0.9, 2))
    assert not any_above(detections, [0, 1], 0.5) and any_above(detections, [0, 1], 0.49) and any_above(detections, [2], 0.5)
    assert not any_above(np.zeros((3, 6)), [0], 0.0) and not any_above(np.zeros((0, 6)), [0], 0.0)  # unused rows, and none at all
    assert not any_above(detections, [], 0.0)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.6, 0.7, 0.8])
def test_scores_of_single_precision_are_compared_as_pythons_floats(threshold):
    """As in the papers' scripts, which compare float(score): 0.3 of float32 is above 0.3, 0.7 of float32 is not above 0.7."""
    detections = rows((threshold, 0)).astype(np.float32)
    assert any_above(detections, [0], threshold) == (float(np.float32(threshold)) > threshold)
    assert exposure_curve(detections[None], [0], [threshold]) == float(float(np.float32(threshold)) > threshold)


DETECTIONS = hnp.arrays(float, (5, 4, 2), elements=st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])).map(
    lambda a: np.concatenate([a[..., :1], np.round(a[..., 1:] * 3), np.zeros((5, 4, 4))], -1)
)


@given(DETECTIONS, st.sets(st.integers(0, 3)), st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.6, 1.0]), min_size=1, max_size=5))
def test_the_curve_equals_loops(detections, labels, thresholds):
    expected = [sum(any(d[0] > t and int(d[1]) in labels for d in image) for image in detections) / 5 for t in thresholds]
    assert exposure_curve(detections, labels, thresholds).tolist() == expected
    for threshold in thresholds:
        for one in detections:
            assert number_above(one, labels, threshold) == sum(d[0] > threshold and int(d[1]) in labels for d in one)


@given(DETECTIONS, st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)))
def test_rates_fall_with_the_threshold_and_rise_with_the_labels(detections, labels, more):
    curve = exposure_curve(detections, labels, np.linspace(0, 1, 21))
    assert (np.diff(curve) <= 0).all() and (exposure_curve(detections, labels | more, np.linspace(0, 1, 21)) >= curve).all()
    assert curve[-1] == 0 and curve.min() >= 0 and curve.max() <= 1


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_thresholds_outside_are_errors(threshold):
    with pytest.raises(ValueError, match="thresholds"):
        exposure_curve(np.zeros((1, 2, 6)), [0], [0.5, threshold])
    for kind in (ExposureRate, Detections):
        with pytest.raises(ValidationError, match="threshold"):
            kind.Config(threshold=threshold)


def test_a_curve_of_one_image_of_none_and_without_rows():
    assert exposure_curve(rows((0.4, 1))[None], [1], [0.3, 0.4, 0.5]).tolist() == [1, 0, 0]
    assert exposure_curve(np.zeros((3, 0, 6)), [1], [0.0]).tolist() == [0]
    with pytest.raises(ValueError, match="at least one image"):
        exposure_curve(np.zeros((0, 4, 6)), [1], [0.5])


# -- what counts ---------------------------------------------------------------------------------------------------------
def test_sets_count_their_labels_only():
    anus, belly, covered = (image(rows((0.6, label))) for label in ("ANUS_EXPOSED", "BELLY_EXPOSED", "FEET_COVERED"))
    found = {name: [ner(labels=name).value(i) for i in (anus, belly, covered)] for name in ("kpop8", "nine", "core")}
    assert found == {"kpop8": [0, 1, 0], "nine": [1, 1, 0], "core": [1, 0, 0]}


def test_the_concepts_own_labels_in_either_spelling():
    metric = ner(threshold=0.5)
    values = [metric.value(image(rows((0.6, label)))) for label in ("FEET_EXPOSED", "FEMALE_BREAST_EXPOSED", "BELLY_EXPOSED")]
    assert values == [1, 1, 0]


def test_a_detectors_labels_are_numbered_through_its_heads():
    names = ("ring", "cross", "bolt", "heart", "face")
    face = Concept(name="faces", kind="explicit", phrases=("x",), labels=("face/face",))
    found = rows((0.9, "face"), labels=names)
    assert ner(MARKS_DETECTOR).value(image(found, face)) == 1 and ner(MARKS_DETECTOR).value(image(found, MARKS)) == 0
    bolt = image(rows((0.9, "bolt"), labels=names), MARKS)
    assert [ner(MARKS_DETECTOR, labels=name).value(bolt) for name in ("concept", "marks", "marks-core")] == [0, 1, 0]


def test_old_and_new_names_are_one_protocol():
    new = [f"nudity/{label}" for label in LABELS if label.endswith("_EXPOSED")]
    for options in ({"labels": OLD_NINE}, {"labels": new}, {"labels": [n.removeprefix("nudity/") for n in new]}):
        assert ner(**options).protocol == ner(labels="nine").protocol == "ner-0.5-nine@gt0.5-nine/nudenet-3.4"
        assert ner(**options).counted(CAT) == ner(labels="nine").counted(CAT)


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"labels": ["FEET_EXPOSE"]}, "FEET_EXPOSED"),
        ({"labels": ["nudity/FEET_EXPOSED", "EXPOSED_FOOT"]}, "EXPOSED_FEET"),
        ({"labels": "marks"}, "unknown label 'mark/ring'"),
    ],
)
def test_unknown_labels_are_found_before_anything_runs(options, near):
    for make in (ner, counting):
        with pytest.raises(UserInputError, match=near) as caught:
            make(**options)
        assert "nudenet-3.4" in caught.value.message


@pytest.mark.parametrize(
    ("labels", "message"), [("kpop", "did you mean 'kpop8'.*or concept"), ([], "at least one label"), ("", "unknown label set"), (3, "labels")]
)
def test_unknown_sets_are_errors_of_the_options(labels, message):
    with pytest.raises(ValidationError, match=message):
        ExposureRate.Config(labels=labels)


def test_it_applies_to_targets():
    own, named = ner(), ner(labels="core")
    assert own.applies(NUDITY, "target") and not own.applies(MARKS, "target") and not own.applies(CAT, "target")
    assert named.applies(NUDITY, "target") and named.applies(MARKS, "target") and not named.applies(CAT, "target")
    assert not own.applies(NUDITY, "retained") and not named.applies(NUDITY, "retained")
    bare = Concept(name="b", kind="explicit", phrases=("x",), labels=("FEET_EXPOSED",))  # concepts name heads
    assert not own.applies(bare, "target")


def test_a_score_that_is_no_number_is_a_failure():
    broken = rows((0.9, "FEET_EXPOSED"), (np.nan, "FEET_EXPOSED"))
    assert ner().value(image(broken)) is None and counting().value(image(broken)) is None


# -- ids -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("metric", "protocol"),
    [
        (ner(), "ner-0.5@gt0.5-any/nudenet-3.4"),
        (ner(threshold=0.3, labels="kpop8"), "ner-0.3-kpop8@gt0.3-kpop8/nudenet-3.4"),
        (ner(labels=["EXPOSED_FEET", "nudity/BELLY_EXPOSED"]), "ner-0.5-belly_exposed+feet_exposed@gt0.5-belly_exposed+feet_exposed/nudenet-3.4"),
        (ner(threshold=0), "ner-0@gt0-any/nudenet-3.4"),
        (counting(threshold=0.6, labels="nine"), "detections-0.6-nine@gt0.6-nine-detections/nudenet-3.4"),
        (counting(threshold=0.6, labels="nine", count="images"), "detections-0.6-nine-images@gt0.6-nine-images/nudenet-3.4"),
        (counting(labels="nine", part="EXPOSED_BELLY"), "detections-0.5-belly_exposed@gt0.5-belly_exposed-detections/nudenet-3.4"),
        (counting(), "detections-0.5@gt0.5-any-detections/nudenet-3.4"),
    ],
)
def test_protocols(metric, protocol):
    assert metric.protocol == protocol
    assert type(metric)(metric.config, ABSENT).protocol == protocol  # the same where the weights are missing
    assert (metric.better("target"), metric.role) == ("lower", "detector")


# -- counting ------------------------------------------------------------------------------------------------------------
FOUND = rows((0.9, "FEMALE_BREAST_EXPOSED"), (0.8, "FEMALE_BREAST_EXPOSED"), (0.7, "FEMALE_BREAST_EXPOSED"), (0.65, "BELLY_EXPOSED"), (0.6, "FACE_FEMALE"))


def test_detections_and_images_by_part():
    def value(**options):
        return counting(labels="nine", **options).value(image(FOUND))

    assert (value(), value(threshold=0.7), value(threshold=0.95)) == (4, 2, 0)
    assert (value(part="BELLY_EXPOSED"), value(part="EXPOSED_BREAST_F"), value(part="FEET_EXPOSED")) == (1, 3, 0)
    assert (value(count="images"), value(part="EXPOSED_BREAST_F", count="images"), value(part="FEET_EXPOSED", count="images")) == (1, 1, 0)
    sums, shares = counting(), counting(count="images")
    assert (sums.unit, sums.total, sums.is_rate) == ("detections", True, False) and (shares.unit, shares.total, shares.is_rate) == ("rate", False, True)
    assert (Detections.unit, Detections.total, Detections.is_rate) == ("detections", True, False)  # an instance changes itself only


@given(DETECTIONS, st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([{}, {"part": "cross"}, {"labels": "marks"}]))
def test_images_with_any_are_no_more_than_detections(detections, threshold, options):
    images = [image(d, MARKS) for d in detections]
    number = sum(counting(MARKS_DETECTOR, threshold=threshold, **options).value(i) for i in images)
    shares = [counting(MARKS_DETECTOR, threshold=threshold, count="images", **options).value(i) for i in images]
    assert sum(shares) <= number and set(shares) <= {0.0, 1.0} and (number == 0) == (sum(shares) == 0)
    if "part" not in options:
        assert shares == [ner(MARKS_DETECTOR, threshold=threshold, **options).value(i) for i in images]


@given(DETECTIONS)
def test_parts_add_up(detections):
    for one in detections:
        parts = [counting(MARKS_DETECTOR, labels="marks", part=p).value(image(one, MARKS)) for p in ("ring", "cross", "bolt", "heart")]
        assert sum(parts) == counting(MARKS_DETECTOR, labels="marks").value(image(one, MARKS))


def test_a_part_of_the_concept_and_a_part_of_nothing():
    assert counting(MARKS_DETECTOR, part="cross").applies(MARKS, "target") and not counting(MARKS_DETECTOR, part="bolt").applies(MARKS, "target")
    with pytest.raises(UserInputError, match="part 'ANUS_EXPOSED' is none of the labels 'kpop8'"):
        counting(labels="kpop8", part="ANUS_EXPOSED")
    with pytest.raises(UserInputError, match="did you mean 'BELLY_EXPOSED'"):
        counting(labels="kpop8", part="BELY_EXPOSED")


def test_one_image_has_a_value_without_an_interval():
    value = ner().value(image(np.zeros((0, 6))))
    estimate = Estimate.of([value], ["p"], planned=1, rate=True, unit="rate", better="lower")
    assert (estimate.value, estimate.low) == (0.0, None)


def test_no_detection_at_all_has_an_interval_above_zero():
    values = [ner().value(image(np.zeros((4, 6)))) for _ in range(30)]
    estimate = Estimate.of(values, [str(i) for i in range(30)], planned=30, rate=True, unit="rate", better="lower")
    assert estimate.value == 0 and estimate.high > 0.05


# -- presets -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [ExposureRate, Detections])
def test_presets_are_protocols(kind):
    presets = presets_of(kind.name)
    assert next(iter(presets)) == "default" and presets["default"].judge is None
    for name, preset in presets.items():
        assert preset.judge in (None, "nudenet-3.4") and preset.note.strip(), name
        metric = kind(kind.Config.model_validate(preset.options), NUDENET)
        assert metric.applies(NUDITY, "target")
    assert len({kind(kind.Config.model_validate(p.options), NUDENET).protocol for p in presets.values()}) == len(presets)


def test_kpop_at_its_thresholds_with_both_label_sets():
    line = MetricSpec(metric="ner", preset="kpop", each={"threshold": [0.3, 0.5, 0.7, 0.8], "labels": ["kpop8", "core"]})
    ids = [ner(**one.options).id for one in spelled_out(line)]
    assert len(set(ids)) == 8 and ids[:2] == ["ner-0.3-kpop8", "ner-0.3-core"]


def test_black_and_tiny_pictures_through_the_real_judge():
    judge = nudenet_34()
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1] = np.linspace(0, 255, 32).astype(np.uint8)[:, None]
    images[2] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    detections = judge(images)["detections"]
    metric = ner(judge.card, labels="kpop8")
    assert [metric.value(image(d)) for d in detections] == [0, 0, 0]
    assert exposure_curve(detections, metric.counted(NUDITY), [0.3, 0.5]).tolist() == [0, 0]
