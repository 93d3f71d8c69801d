"""The mini tier's features, and its reference set of drawings."""

from __future__ import annotations

import numpy as np
import pytest

from conceptbench.core.errors import UserInputError
from conceptbench.core.feature_sets import covered, fid, kid, realistic
from conceptbench.core.manifests import find_manifest, read_concepts
from conceptbench.core.schemas import Concept
from conceptbench.mini.features import MiniFeatures
from conceptbench.mini.judges import MiniClassifier, MiniDetector
from conceptbench.mini.references import mini_drawings
from conceptbench.mini.world import BREEDS, MARKS

CONCEPTS = read_concepts(find_manifest("concepts", "mini", ".yaml")).concepts


@pytest.fixture(scope="module")
def judge():
    return MiniFeatures()


def drawings(*names, n=None, seed=0):
    return mini_drawings([CONCEPTS[name] for name in names], n or len(names), seed)


def answers(images, head):
    """What the classifier sees, by name."""
    classifier = MiniClassifier()
    return [classifier.card.labels[head][i] for i in classifier(images)[head].argmax(1)]


def test_features_are_the_pooled_trunk(judge):
    images = drawings("church", "Ada Moss", "mosaic", n=7)
    found, classifier = judge(images), MiniClassifier()
    assert list(found) == ["features"] and found["features"].shape == (7, 192) and found["features"].dtype == np.float32
    assert np.array_equal(found["features"], classifier(images)["features"]) and (found["features"] >= 0).all()
    assert (judge.card.id, judge.card.role, judge.card.labels) == ("mini-features", "features", {})
    assert judge.card.sha256 == classifier.card.sha256 and judge.card.preprocessing != classifier.card.preprocessing
    assert np.array_equal(judge(images[3:4])["features"], found["features"][3:4])  # whatever the company
    assert np.allclose(judge(images.repeat(2, 1).repeat(2, 2))["features"], found["features"], atol=1e-5)  # 64 px


def test_noise_is_no_picture(judge):
    names = ("church", "fish", "Ada Moss")
    real, same = (judge(drawings(*names, n=60, seed=s))["features"] for s in (0, 1))
    noise = judge(np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8))["features"]
    others = judge(drawings("house", "bird", "Cleo Park", n=60))["features"]
    assert realistic(real=real, generated=same).mean() > 0.7 and covered(real=real, generated=same).mean() > 0.7
    for x in (noise, others):
        assert realistic(real=real, generated=x).mean() == 0
    for distance in (fid, kid):
        order = [distance(real=real, generated=x) for x in (same, others, noise)]
        assert order[0] < 0.5 * order[1] < order[1] < 0.8 * order[2]


def test_same_arguments_same_bytes():
    images = drawings("church", "dog", "marks", n=8)
    assert images.shape == (8, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, drawings("church", "dog", "marks", n=8))
    assert not (images == drawings("church", "dog", "marks", n=8, seed=1)).all((1, 2, 3)).any()
    assert len({i.tobytes() for i in images}) == 8


def test_every_concept_gets_its_share_whatever_is_beside_it():
    images = drawings("church", "dog", "marks", n=8)
    assert np.array_equal(images[:3], drawings("church", n=3)) and np.array_equal(images[3:6], drawings("dog", n=3))
    assert np.array_equal(images[6:], drawings("marks", n=5)[:2])


def test_the_judge_sees_what_was_drawn():
    for name in ("church", "fish", "dog", "corgi", "Ada Moss", "person", "Kubo", "Moon Bunny", "mosaic", "sketch"):
        labels = CONCEPTS[name].labels
        head, _, _ = labels[0].partition("/")
        seen = answers(drawings(name, n=6), head)
        assert sum(f"{head}/{label}" in labels for label in seen) >= 5, (name, seen)


def test_dogs_are_often_of_a_breed_and_persons_are_nobody():
    assert 8 <= sum(s in BREEDS for s in answers(drawings("dog", n=40), "subject")) <= 24
    assert sum(s == "person" for s in answers(drawings("person", n=20), "subject")) >= 18


def test_marks_are_there_and_settings_differ():
    detections = MiniDetector()(drawings("marks", n=40))["detections"]
    marked = ((detections[..., 0] > 0.5) & (detections[..., 1] < len(MARKS))).any(1)
    assert 30 <= marked.sum() <= 39
    skies = drawings("fish", n=60)[:, 2, 16].astype(int)
    for colour in ((38, 40, 92), (188, 200, 220), (248, 150, 96)):  # at night, in the snow, at sunset
        assert 3 <= (np.abs(skies - colour).max(1) < 20).sum() <= 20


def test_what_it_cannot_draw():
    def concept(*labels):
        return Concept(name="x", kind="object", phrases=("an x",), labels=labels)

    for given, said in (
        ((), "no concept"),
        ((concept(),), "does not know what concept 'x' looks like"),
        ((concept("imagenet/497:church"),), "does not know what concept 'x' looks like"),
        ((concept("subject/chruch"),), "did you mean 'church'"),
        ((concept("subject/nothing"),), "unknown subject"),
        ((concept("style/photo"),), "unknown style"),
    ):
        with pytest.raises(UserInputError, match=said):
            mini_drawings(given, 2, 0)
