from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import yaml

from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept
from conceptbench.metrics.faces import GCDS, FaceTop1, NoFace, TargetFace, best_answers, largest, present, target_probabilities

NAMES = ("Ada", "Eva", "person", "no person")
JUDGE = JudgeCard("fake", "faces", "0" * 64, "", "", "", {"identity": NAMES})
ADA = Concept(name="Ada", kind="identity", phrases=("Ada",), labels=("subject/Ada", "identity/Ada"))
ANYBODY = Concept(name="person", kind="identity", phrases=("a person",), labels=("identity/Ada", "identity/Eva", "identity/person"))
METRICS = {m.name: m for m in (NoFace, GCDS, FaceTop1, TargetFace)}
SMALL, LARGE = (0.1, 0.1, 0.3, 0.3), (0.4, 0.2, 0.9, 0.9)


def metric(name, **options):
    kind = METRICS[name]
    return kind(kind.Config(**options), JUDGE)


def seen(*found, concept=ADA, prompt="p"):
    """An image with the faces (score, box, probabilities); three rows."""
    faces, identities = np.zeros((3, 5), np.float32), np.zeros((3, len(NAMES)), np.float32)
    for row, (score, box, probabilities) in enumerate(found):
        faces[row], identities[row] = (score, *box), probabilities
    return Scored(Asked(concept, "target", prompt), {"faces": faces, "identities": identities})


ADA_SMALL = (0.9, SMALL, (0.8, 0.1, 0.1, 0.0))
EVA_LARGE = (0.8, LARGE, (0.3, 0.6, 0.1, 0.0))
NOBODY = seen()
TWO = seen(ADA_SMALL, EVA_LARGE)


def estimated(name, images, prompts, **options):
    """What the engine does: only images that count are in the denominator."""
    asked = metric(name, **options)
    values = [asked.value(i) for i in images if asked.counts(i)]
    clusters = [p for i, p in zip(images, prompts, strict=True) if asked.counts(i)]
    return Estimate.of(values, clusters, planned=len(images), rate=asked.is_rate, unit=asked.unit, better=asked.better("target"))


def test_two_faces_tell_the_four_apart():
    assert metric("no_face").value(TWO) == 0
    assert metric("gcds").value(TWO) == pytest.approx(0.8)  # of the small face
    assert metric("face_top1").value(TWO) == 0  # the large one is Eva
    assert metric("target_face").value(TWO) == 1


def test_no_face_at_all():
    assert metric("no_face").value(NOBODY) == 1 and metric("no_face").counts(NOBODY)
    assert metric("target_face").value(NOBODY) == 0 and metric("target_face").counts(NOBODY)
    assert not metric("gcds").counts(NOBODY) and not metric("face_top1").counts(NOBODY)


def test_an_unused_row_is_nobody_even_where_its_probabilities_tie():
    # argmax of a row of zeros is the first label, which is the target's
    stranger = seen((0.9, SMALL, (0.0, 1.0, 0.0, 0.0)))
    assert metric("target_face").value(stranger) == 0 and metric("face_top1").value(stranger) == 0 and metric("gcds").value(stranger) == 0


@pytest.mark.parametrize(("floor", "faces"), [(0.79, 2), (0.8, 1), (0.9, 0)])
def test_a_score_at_the_floor_is_no_face(floor, faces):
    # float32(0.8) > 0.8 in doubles, so scores and floors must be compared in one precision
    assert present(TWO.said["faces"], floor).sum() == faces
    assert metric("no_face", floor=floor).value(TWO) == (faces == 0)
    assert metric("gcds", floor=floor).counts(TWO) == (faces > 0)


def test_the_floor_chooses_the_faces_that_are_asked():
    half = seen((0.9, LARGE, (0.1, 0.9, 0.0, 0.0)), (0.5, SMALL, (0.7, 0.3, 0.0, 0.0)))
    assert metric("gcds").value(half) == pytest.approx(0.7) and metric("gcds", floor=0.5).value(half) == pytest.approx(0.1)
    assert metric("target_face").value(half) == 1 and metric("target_face", floor=0.5).value(half) == 0
    swapped = seen((0.9, SMALL, (0.7, 0.3, 0.0, 0.0)), (0.5, LARGE, (0.1, 0.9, 0.0, 0.0)))
    assert metric("face_top1").value(swapped) == 0 and metric("face_top1", floor=0.5).value(swapped) == 1


def test_ties():
    ada, eva, wide, tall = (0.9, 0.1, 0.0, 0.0), (0.1, 0.9, 0.0, 0.0), (0.0, 0.0, 0.5, 0.25), (0.0, 0.0, 0.25, 0.5)
    assert metric("face_top1").value(seen((0.9, wide, ada), (0.8, tall, eva))) == 1  # of equal faces the first
    assert metric("face_top1").value(seen((0.9, wide, eva), (0.8, tall, ada))) == 0
    boxes = np.array([[0.9, *wide], [0.8, *tall]])
    assert largest(boxes, np.array([True, True])) == 0 and largest(boxes, np.array([False, True])) == 1
    assert best_answers(np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]), [1]).tolist() == [False, True]


def test_a_box_without_area_is_a_face_too():
    assert metric("face_top1").value(seen((0.9, (0.5, 0.5, 0.5, 0.5), (1.0, 0.0, 0.0, 0.0)))) == 1


def test_a_concept_with_several_labels_is_their_sum():
    assert target_probabilities(np.array([[0.25, 0.5, 0.125, 0.125]]), [0, 1, 2]).tolist() == [0.875]
    assert metric("gcds").value(seen(EVA_LARGE, concept=ANYBODY)) == pytest.approx(1.0)
    assert metric("gcds").value(seen(EVA_LARGE, concept=ANYBODY)) <= 1
    assert metric("face_top1").value(seen(EVA_LARGE, concept=ANYBODY)) == 1
    assert metric("face_top1").value(seen((0.9, SMALL, (0.2, 0.2, 0.2, 0.4)), concept=ANYBODY)) == 0  # the judge says that it is nobody


def test_means_over_the_right_images_equal_a_loop():
    generator = np.random.default_rng(0)
    images = []
    for i in range(60):
        found = [(generator.uniform(0.1, 1), (0, 0, *generator.uniform(0.1, 1, 2)), generator.dirichlet(np.ones(4))) for _ in range(i % 4)]
        images.append(seen(*found))
    prompts = [f"p{i // 2}" for i in range(60)]
    probabilities, top1, without = [], [], 0
    for image in images:
        faces, identities = image.said["faces"], image.said["identities"]
        rows = [r for r in range(3) if faces[r, 0] > 0.4]
        if not rows:
            without += 1
            continue
        probabilities.append(max(float(identities[r, 0]) for r in rows))
        main = max(rows, key=lambda r: float((faces[r, 3] - faces[r, 1]) * (faces[r, 4] - faces[r, 2])))
        top1.append(all(identities[main, 0] >= p for p in identities[main]))
    assert 15 < without < 45
    gcds, accuracy, no_face = (estimated(n, images, prompts, floor=0.4) for n in ("gcds", "face_top1", "no_face"))
    assert gcds.value == pytest.approx(np.mean(probabilities)) and gcds.spread == pytest.approx(np.std(probabilities)) and gcds.spread_kind == "images"
    assert accuracy.value == pytest.approx(np.mean(top1)) and no_face.value == pytest.approx(without / 60)
    assert (gcds.scored, accuracy.scored, no_face.scored) == (60 - without, 60 - without, 60)
    assert accuracy.spread is None and gcds.low < gcds.value < gcds.high


def test_all_images_without_a_face_give_no_value_and_never_zero():
    prompts = ["a", "b", "c"]
    for name in ("gcds", "face_top1"):
        nothing = estimated(name, [NOBODY] * 3, prompts)
        assert nothing.value is None and nothing.low is None and nothing.reason and nothing.scored == 0
    everything = estimated("no_face", [NOBODY] * 3, prompts)
    assert everything.value == 1 and everything.low < 1
    assert estimated("target_face", [NOBODY] * 3, prompts).value == 0


def test_a_number_that_is_none_fails():
    assert metric("gcds").value(seen((0.9, SMALL, (np.nan, 0, 0, 0)))) is None


def test_whom_they_apply_to():
    stranger = Concept(name="Bob", kind="identity", phrases=("Bob",), labels=("subject/Bob", "identity/Bob"))
    other_head = Concept(name="Ada", kind="identity", phrases=("Ada",), labels=("subject/Ada",))
    thing = Concept(name="doll", kind="object", phrases=("a doll",), labels=("identity/Ada",))
    for name in METRICS:
        asked = metric(name)
        assert asked.applies(ADA, "target") and asked.applies(ADA, "retained") and asked.applies(ANYBODY, "retained")
        assert not any(asked.applies(c, "target") for c in (stranger, other_head, thing))


def test_directions_protocols_and_units():
    assert {n: (metric(n).better("target"), metric(n).better("retained")) for n in METRICS} == {
        "no_face": ("lower", "lower"),
        "gcds": ("lower", "higher"),
        "face_top1": ("lower", "higher"),
        "target_face": ("lower", "higher"),
    }
    assert [metric(n).protocol for n in METRICS] == [
        "no_face@images-gt0/fake",
        "gcds@max-face-gt0/fake",
        "face_top1@largest-top1-gt0/fake",
        "target_face@any-top1-gt0/fake",
    ]
    assert metric("gcds", floor=0.5).protocol == "gcds-0.5@max-face-gt0.5/fake"
    assert [metric(n).unit for n in METRICS] == ["rate", "probability", "rate", "rate"] and [METRICS[n].is_rate for n in METRICS] == [True, False, True, True]
    assert all(m.reference and m.failure_modes for m in METRICS.values())


@pytest.mark.parametrize("name", METRICS)
def test_presets_are_options_of_the_metric(name):
    presets = yaml.safe_load((files("conceptbench.metrics") / "presets" / f"{name}.yaml").read_text())
    assert next(iter(presets)) == "default"
    for preset in presets.values():
        assert set(preset) <= {"judge", "options", "note"} and preset["note"]
        METRICS[name].Config(**preset.get("options", {}))


def test_a_floor_of_one_is_refused():
    for floor in (-0.1, 1.0):
        with pytest.raises(ValueError, match="floor"):
            metric("no_face", floor=floor)
