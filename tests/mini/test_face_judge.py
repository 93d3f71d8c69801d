"""The mini tier's face identifier, on drawings that no judge was trained on."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from conceptbench.core.files import key_of, sha256_file
from conceptbench.mini.face_judge import DROP, FLOOR, REACH, MiniFaces, face_rows, looked_through, windows
from conceptbench.mini.judges import MiniClassifier, to_input, weights_file
from conceptbench.mini.render import Placement, Scene, render
from conceptbench.mini.scenes import judge_scene, place_subject
from conceptbench.mini.world import BRIGHT_SETTINGS, IDENTITIES, SETTINGS, STYLES

EACH = 40  # drawings of each person


def scene(names, rng):
    """Persons in a random style and setting: one in the middle, or two side by side."""
    style = rng.choice(STYLES) if rng.random() < 0.5 else "photo"
    setting = rng.choice(("", *(SETTINGS if style == "photo" else BRIGHT_SETTINGS)))
    places = (place_subject(names[0], rng, rng.choice(("", "", "small", "big"))),)
    if len(names) == 2:
        places = tuple(Placement(n, x + rng.uniform(-2, 2), 52 + rng.uniform(-6, 6), rng.uniform(23, 26)) for n, x in zip(names, (26, 74), strict=True))
    return Scene(places, style, setting, (), rng.getrandbits(31))


@pytest.fixture(scope="module")
def judge():
    return MiniFaces()


@pytest.fixture(scope="module")
def persons(judge):
    rng = random.Random("face judge, persons")
    images = np.stack([render(scene([n], rng)) for n in IDENTITIES for _ in range(EACH)])
    return images, judge(images)


def test_persons_are_found_and_told_apart(judge, persons):
    _, out = persons
    whose = np.repeat(np.arange(len(IDENTITIES)), EACH)
    found = out["faces"][:, 0, 0] > 0
    right = out["identities"][:, 0].argmax(1)[found] == whose[found]
    assert judge.card.labels == {"identity": (*IDENTITIES, "no person")}
    assert found.mean() >= 0.98 and right.mean() >= 0.98
    assert not (out["faces"][:, 1:, 0] > 0).any()
    for person in range(len(IDENTITIES)):
        assert right[whose[found] == person].mean() >= 0.93  # look-alikes and ordinary persons, too


def test_other_pictures_have_no_face(judge):
    rng = random.Random("face judge, others")
    drawn = [s for s, label in (judge_scene(rng) for _ in range(450)) if label not in IDENTITIES]
    others = judge(np.stack([render(s) for s in drawn]))
    assert len(drawn) > 300 and (others["faces"][:, 0, 0] > 0).mean() <= 0.02


def test_two_persons_in_one_picture(judge):
    rng = random.Random("face judge, two")
    pairs = [rng.sample(IDENTITIES[:-1], 2) for _ in range(100)]
    out = judge(np.stack([render(scene(p, rng)) for p in pairs]))
    both = (out["faces"][..., 0] > 0).sum(1) == 2
    order = np.argsort(out["faces"][both, :2, 1], axis=1)
    answers = np.take_along_axis(out["identities"][both, :2].argmax(-1), order, 1)
    whose = np.array([[IDENTITIES.index(n) for n in p] for p in pairs])[both]
    # neither network has seen two persons in one picture, and two side by side are often seen as one or none
    assert both.mean() >= 0.25 and (answers == whose).mean() >= 0.85


def test_nothing_to_see(judge):
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    for images in (np.zeros((1, 32, 32, 3), np.uint8), np.full((2, 64, 64, 3), 255, np.uint8), noise):
        out = judge(images)
        assert out["faces"].shape == (len(images), 8, 5) and out["faces"].max() == 0 and out["identities"].max() == 0


def test_a_face_alone_is_identified_from_the_whole_picture(judge, persons):
    images, out = persons
    alone = (out["faces"][..., 0] > 0).sum(1) == 1
    whole = MiniClassifier()(images[alone])["identity"]
    np.testing.assert_allclose(out["identities"][alone, 0], whole, atol=1e-4)


def test_boxes_hold_the_head(judge):
    for x, y, half in ((50, 50, 40), (40, 56, 30), (60, 45, 30)):
        box = judge(render(Scene((Placement("Ada Moss", x, y, half),), seed=1))[None])["faces"][0, 0, 1:] * 100
        centre, radius = (box[:2] + box[2:]) / 2, (box[2] - box[0]) / 2
        assert abs(centre - (x, y - 0.12 * half)).max() < 4 and radius == pytest.approx(0.62 * half, abs=4)


def test_an_image_is_the_same_bytes_in_any_company(judge, persons):
    images, out = persons
    for rows in ([0], [279, 3, 70], list(range(100, 170))):
        again = judge(images[rows])
        assert all(np.array_equal(again[k], out[k][rows]) for k in out)


def test_rows_of_faces():
    found = np.array([[[0.9, 0, 1, 1, 1, 1], [0.3, 4, 2, 2, 2, 2], [0.31, 4, 3, 4, 5, 6], [0.8, 4, 7, 7, 7, 7]]], np.float32)
    faces = face_rows(found, 4, 0.3)
    assert faces.tolist() == [[[np.float32(0.8), 7, 7, 7, 7], [np.float32(0.31), 3, 4, 5, 6], [0] * 5, [0] * 5]]  # a score at the floor is no face


def test_windows_stay_in_the_picture():
    faces = np.array(
        [[[0.9, 0.0, 0.1, 0.2, 0.3], [0.8, 0.45, 0.4, 0.65, 0.6], [0.7, 0.0, 0.0, 0.9, 0.9], [0] * 5], [[0.9, 0.1, 0.1, 0.2, 0.2], *[[0] * 5] * 3]]
    )
    around = windows(faces.astype(np.float32))
    half = REACH * 0.1
    np.testing.assert_allclose(around[0, 0], (half, 0.2 + DROP * 0.1, half), atol=1e-6)  # moved to the right
    np.testing.assert_allclose(around[0, 1], (0.55, 0.5 + DROP * 0.1, half), atol=1e-6)
    np.testing.assert_allclose(around[0, 2], (0.5, 0.5, 0.5))  # larger than the picture
    np.testing.assert_allclose(around[1, 0], (0.5, 0.5, 0.5))  # alone


def test_a_window_shows_its_part_of_the_picture():
    rightwards = torch.arange(32.0).repeat(3, 32, 1)
    picture = torch.stack([rightwards, rightwards.mT])
    seen = looked_through(picture, torch.tensor([[0.5, 0.5, 0.5], [0.25, 0.75, 0.25]]))
    np.testing.assert_allclose(seen[0], picture[0], atol=1e-4)
    # the lower left quarter of a picture that grows downwards: half a pixel's step
    np.testing.assert_allclose(seen[1, 0, :, 5], 16 - 0.25 + 0.5 * np.arange(32), atol=0.26)
    assert float(seen[1].min()) >= 15.5


def test_the_card_is_of_both_networks(judge):
    digests = {name: sha256_file(weights_file(f"{name}.safetensors")) for name in ("detector", "classifier")}
    assert (judge.card.id, judge.card.role, judge.card.sha256) == ("mini-faces", "faces", key_of(digests))
    assert f"above {FLOOR:g}" in judge.card.preprocessing and f"{REACH:g} radii" in judge.card.preprocessing


def test_other_sizes_are_reduced_by_area(judge):
    image = render(Scene((Placement("Cleo Park"),), seed=2))
    large = image.repeat(2, 0).repeat(2, 1)
    assert torch.allclose(to_input(large[None]), to_input(image[None]), atol=1e-6)
    np.testing.assert_allclose(judge(large[None])["identities"], judge(image[None])["identities"], atol=1e-4)
