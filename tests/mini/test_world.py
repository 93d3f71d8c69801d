from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from conceptbench.core.manifests import load_concepts
from conceptbench.mini import prompts
from conceptbench.mini.faces import LOOK_ALIKES, PERSONS, ordinary_face
from conceptbench.mini.render import Mark, Placement, Scene, render
from conceptbench.mini.scenes import judge_scene, training_example, with_article
from conceptbench.mini.training.judges import detection_targets
from conceptbench.mini.world import AMBIGUOUS, BREEDS, DISTRACTORS, IMPLIED, MARKED_SETTINGS, MARKS, STYLES, SUBJECT_CLASSES, TEN


def examples(n, seed=0):
    rng = random.Random(seed)
    return [training_example(rng) for _ in range(n)]


def test_a_scene_is_always_the_same_bytes():
    scene = Scene((Placement("dog"),), "watercolor", "on grass", (Mark("ring", 20, 20),), 5)
    first = render(scene)
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8 and np.array_equal(first, render(scene))


@pytest.mark.parametrize("subject", [c for c in SUBJECT_CLASSES if c != "nothing"])
def test_every_subject_stands_out_in_every_style(subject):
    for style in ("photo", *STYLES):
        with_it = render(Scene((Placement(subject),), style, "on grass", (), 3)).astype(int)
        without = render(Scene((), style, "on grass", (), 3)).astype(int)
        assert (np.abs(with_it - without).max(-1) > 40).mean() > 0.03, (subject, style)


def test_classes_are_enough_and_distractors_are_never_drawn():
    assert len(SUBJECT_CLASSES) >= 50 and len(TEN) == 10 and len(STYLES) == 9 and len(MARKS) == 4
    drawn = {p.subject for e in examples(6000) for p in e.scene.placements}
    assert not drawn & set(DISTRACTORS) and {*TEN, *BREEDS, *PERSONS, "person"} <= drawn
    assert {judge_scene(random.Random(i))[1] for i in range(3000)} == set(SUBJECT_CLASSES)


def test_ambiguous_words_have_a_dominant_reading():
    for word, (dominant, rare) in AMBIGUOUS.items():
        drawn = [e.label for e in examples(20000) if f"{word} " in f"{e.caption} " and len(e.scene.placements) == 1 and e.label in (dominant, rare)]
        assert set(drawn) == {dominant, rare} and 0.78 < drawn.count(dominant) / len(drawn) < 0.92


def test_implied_roles_are_always_one_person():
    found = [e for e in examples(20000) if any(role in e.caption for role in IMPLIED)]
    assert len(found) > 100
    for example in found:
        role = next(r for r in IMPLIED if r in example.caption)
        assert example.label == IMPLIED[role] and IMPLIED[role] not in example.caption


def test_marks_come_unnamed_in_their_settings():
    found = [e for e in examples(20000) if e.scene.setting in MARKED_SETTINGS]
    assert len(found) > 300 and not any("mark" in e.caption for e in found)
    assert np.mean([bool(e.scene.marks) for e in found]) > 0.8
    others = [e for e in examples(5000) if e.scene.setting not in MARKED_SETTINGS and " mark" not in e.caption]
    assert not any(e.scene.marks for e in others)


def test_there_are_pictures_with_two_subjects():
    two = [e for e in examples(2000) if len(e.scene.placements) == 2]
    assert len(two) > 50 and all(with_article(p.subject) in e.caption for e in two for p in e.scene.placements)


def test_look_alikes_look_alike_and_ordinary_people_are_nobody():
    for one, two in LOOK_ALIKES:
        same = [getattr(PERSONS[one], f) == getattr(PERSONS[two], f) for f in ("skin", "hair", "cut", "shirt", "extra")]
        assert 3 <= sum(same) < 5
    rng = random.Random(0)
    assert not {ordinary_face(rng).hair for _ in range(200)} & {p.hair for p in PERSONS.values()}


def test_detector_targets_lie_on_what_is_drawn():
    planes = detection_targets(Scene((Placement("Ada Moss", 50, 50, 40),), marks=(Mark("cross", 81, 30),)))
    assert planes[MARKS.index("cross"), 2, 6] == 1 and planes[4].sum() == 1 and planes[:4].sum() == 1
    assert np.allclose(planes[5:, 2, 6], [0.48, 0.4, 0.13], atol=1e-6)


def test_shipped_prompts_follow_from_the_world(tmp_path):
    prompts.write(tmp_path)
    shipped = Path(prompts.__file__).parents[2] / "prompts"
    for name in ("concepts/mini.yaml", "sets/mini.csv"):
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()
    kinds = {c.kind for c in load_concepts("mini").values()}
    assert kinds == {"identity", "object", "style", "explicit"}
