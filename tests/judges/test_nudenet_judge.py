from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import nudenet
import numpy as np
import pytest
from PIL import Image

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.label_sets import label_sets
from conceptbench.judges import nudenet as nudenet_judge
from conceptbench.judges.nudenet import FLOOR, LABELS, MOST_DETECTIONS, OVERLAP, detections_in, network_input, nudenet_34, nudenet_34_rgb

WHEEL = Path(nudenet.__file__).parent
WHEELS_FLOOR = 0.25


@pytest.fixture(scope="module")
def judge():
    return nudenet_34()


@pytest.fixture(scope="module")
def theirs():
    return nudenet.NudeDetector()


@pytest.fixture(scope="module")
def photo():
    """A portrait that matplotlib brings: its path, and its pixels as the wheel decodes them, in RGB."""
    matplotlib = pytest.importorskip("matplotlib")
    path = f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg"
    return path, np.ascontiguousarray(cv2.imread(path)[..., ::-1])


def as_the_wheel_says(detections, height, width):
    """Detections above the wheel's floor in the wheel's form: class, score and whole px; every number exactly."""
    out = []
    for score, label, x0, y0, x1, y1 in detections:
        if score > WHEELS_FLOOR:
            x, y, w, h = (np.float32(v) for v in (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height))
            out.append({"class": LABELS[int(label)], "score": float(score), "box": [int(x), int(y), int(w), int(h)]})
    return out


def variants(image):
    """Pictures in which something is found, and the same under conditions in which a slip in the geometry would show."""
    face = image[100:400, 100:420]
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return {
        "whole": image,
        "mirrored": image[:, ::-1],
        "wide": np.concatenate([image, image[:, ::-1]], 1),
        "high": np.concatenate([image, image], 0),
        "square": cv2.resize(image, (512, 512)),
        "small": cv2.resize(image, (128, 150)),
        "face at the edge": face[:, 90:],
        "four faces": np.tile(face, (2, 2, 1)),
        "gray": np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, -1),
        "black": np.zeros((64, 48, 3), np.uint8),
        "white": np.full((64, 64, 3), 255, np.uint8),
        "noise": noise,
        "32 px": cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA),
        "one pixel": np.zeros((1, 1, 3), np.uint8),
        "a line": np.zeros((1, 40, 3), np.uint8),
    }


def test_labels_are_the_wheels_and_all_sets_know_them():
    assert list(LABELS) == vars(importlib.import_module("nudenet.nudenet"))["__labels"]
    for name in ("kpop8", "nine", "core"):
        assert {label.removeprefix("nudity/") for label in label_sets().sets[name]} <= set(LABELS)
    assert set(label_sets().aliases["nudity"].values()) <= set(LABELS)


def test_equal_to_the_wheel_by_path(judge, theirs, photo, tmp_path):
    path, image = photo
    expected = theirs.detect(path)
    assert [d["class"] for d in expected] == ["FACE_FEMALE"]
    assert as_the_wheel_says(judge(image[None])["detections"][0], *image.shape[:2]) == expected
    Image.fromarray(image).save(tmp_path / "a.png")  # the way of an image of a run: pixels, PNG, path
    assert theirs.detect(str(tmp_path / "a.png")) == expected


def test_equal_to_the_wheel_on_many_pictures(judge, theirs, photo, tmp_path):
    found = {}
    for name, image in variants(photo[1]).items():
        Image.fromarray(image).save(tmp_path / "a.png", compress_level=1)
        expected = theirs.detect(str(tmp_path / "a.png"))
        assert as_the_wheel_says(judge(image[None])["detections"][0], *image.shape[:2]) == expected, name
        found[name] = len(expected)
    assert found["four faces"] >= 3 and found["wide"] == 2 and sum(n > 0 for n in found.values()) >= 6
    assert [found[n] for n in ("black", "white", "noise", "32 px", "one pixel", "a line")] == [0] * 6


def test_the_order_of_the_channels_is_another_protocol(judge, theirs, photo):
    image = photo[1]
    rgb = nudenet_34_rgb()
    assert as_the_wheel_says(rgb(image[None])["detections"][0], *image.shape[:2]) == theirs.detect(image)
    scores = [j(image[None])["detections"][0, 0, 0] for j in (judge, rgb)]
    assert scores == pytest.approx([0.615, 0.760], abs=1e-3)
    assert (judge.card.id, rgb.card.id) == ("nudenet-3.4", "nudenet-3.4-rgb") and judge.card.preprocessing != rgb.card.preprocessing
    assert "BGR" in judge.card.preprocessing and "RGB" in rgb.card.preprocessing
    red = np.zeros((8, 4, 3), np.uint8)
    red[..., 0] = 255
    assert network_input(red, "bgr")[0].mean((1, 2)) == pytest.approx([0, 0, 0.5], abs=0.01)  # half of the square is black
    assert network_input(red, "rgb")[0].mean((1, 2)) == pytest.approx([0.5, 0, 0], abs=0.01)


def output(generator, boxes, height, width):
    """A made-up output of the network: clustered boxes, some over the edges, scores on both sides of every floor."""
    out = np.zeros((22, 2100), np.float32)
    rows = generator.choice(2100, boxes, replace=False)
    centres = generator.uniform(-10, 330, (4, 2))[generator.integers(0, 4, boxes)] + generator.normal(0, 12, (boxes, 2))
    out[:4, rows] = np.concatenate([centres, generator.uniform(5, 90, (boxes, 2))], 1).T
    out[4:, rows] = generator.uniform(0, 1, (18, boxes)) ** 3 * generator.uniform(0, 1, boxes)
    return out


@pytest.mark.parametrize("seed", range(20))
def test_suppression_equals_the_wheels(seed):
    generator = np.random.default_rng(seed)
    height, width = (int(n) for n in generator.integers(20, 700, 2))
    raw, side = output(generator, 60, height, width), max(height, width)
    x_pad, y_pad = side - width, side - height
    postprocess = vars(importlib.import_module("nudenet.nudenet"))["_postprocess"]
    expected = postprocess([raw[None]], x_pad, y_pad, side / width, side / height, width, height, 320, 320)
    assert len(expected) > 3 and as_the_wheel_says(detections_in(raw, height, width), height, width) == expected


def overlap(a, b):
    right, bottom = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    both = max(0.0, right - max(a[0], b[0])) * max(0.0, bottom - max(a[1], b[1]))
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_below_the_wheels_floor_equals_a_loop(seed):
    raw = output(np.random.default_rng(seed), 40, 320, 320)
    raw[4:] *= 0.3
    rows = sorted((r for r in raw.T if r[4:].max() > FLOOR), key=lambda r: -r[4:].max())
    kept = []
    for r in rows:
        x, y = min(max(float(r[0] - r[2] / 2), 0), 320), min(max(float(r[1] - r[3] / 2), 0), 320)
        box = (x, y, min(float(r[2]), 320 - x), min(float(r[3]), 320 - y))
        if all(overlap(box, other) <= OVERLAP for _, _, other in kept):
            kept.append((float(r[4:].max()), int(r[4:].argmax()), box))
    found = detections_in(raw, 320, 320)
    assert 5 < len(kept) == len(found) and min(found[:, 0]) < WHEELS_FLOOR / 2
    assert [(s, label) for s, label, _ in kept] == [(s, int(label)) for s, label in found[:, :2]]
    corners = np.array([[x, y, x + w, y + h] for _, _, (x, y, w, h) in kept]) / 320
    assert np.allclose(found[:, 2:], corners, atol=1e-6)


def test_only_the_highest_are_kept_and_rows_are_in_order():
    raw = np.zeros((22, 2100), np.float32)
    for i in range(50):  # far from each other
        raw[:4, i], raw[4 + i % 18, i] = (i % 10 * 32 + 10, i // 10 * 60 + 20, 10, 10), 0.1 + 0.015 * i
    found = detections_in(raw, 320, 320)
    assert len(found) == MOST_DETECTIONS and list(found[:, 0]) == sorted(raw[4:].max(0)[:50].astype(float), reverse=True)[:MOST_DETECTIONS]


def test_a_result_does_not_depend_on_the_company(judge, photo):
    image = cv2.resize(photo[1], (320, 375))
    images = np.stack([np.zeros_like(image), image, image[:, ::-1], image])
    together = judge(images)["detections"]
    assert together.shape == (4, MOST_DETECTIONS, 6) and not together[0].any()
    assert all(np.array_equal(judge(images[i : i + 1])["detections"][0], together[i]) for i in range(4))
    assert np.array_equal(together[1], together[3]) and together[1, 0, 0] > WHEELS_FLOOR
    assert judge.session.get_session_options().intra_op_num_threads == 1
    assert judge(images[:0])["detections"].shape == (0, MOST_DETECTIONS, 6)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)]
)
def test_other_arrays_are_refused(judge, images):
    with pytest.raises(UserInputError, match=r"\(N, H, W, 3\) of uint8"):
        judge(images)


def test_the_card_says_what_it_is(judge):
    assert judge.card.sha256 == hashlib.sha256((WHEEL / "320n.onnx").read_bytes()).hexdigest()
    assert importlib.metadata.version("nudenet") in judge.card.source and judge.card.role == "detector"
    assert judge.card.numbered() == [f"nudity/{label}" for label in LABELS] and "AGPL" in judge.card.licence


@pytest.mark.parametrize("version", ["3.0.8", "3.40", "2.0.9", "4.0"])
def test_another_version_is_refused(monkeypatch, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(MissingWeightsError, match=f"is nudenet 3.4, and installed is {version}") as caught:
        nudenet_34()
    assert 'pip install "nudenet==3.4.2"' in caught.value.hint


def test_no_nudenet_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(MissingWeightsError, match="not installed") as caught:
        nudenet_34()
    assert 'pip install "nudenet==3.4.2"' in caught.value.hint


@pytest.mark.parametrize("change", ["gone", "other"])
def test_another_network_is_refused(monkeypatch, tmp_path, change):
    if change == "other":
        shutil.copy(WHEEL / "320n.onnx", tmp_path / "320n.onnx")
        with (tmp_path / "320n.onnx").open("r+b") as file:
            file.seek(5000)
            file.write(b"\0\1\2")
    monkeypatch.setattr(nudenet_judge.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(MissingWeightsError, match="is not there" if change == "gone" else "is not the network") as caught:
        nudenet_judge.weights_file("nudenet-3.4")
    assert "pip install" in caught.value.hint
