"""MTCNN with random weights of the real architecture, against the original's arithmetic in loops."""

from __future__ import annotations

import math
import os
import pickle

import cv2
import numpy as np
import pytest
import torch
from giphy_weights import STAGES, Python2Pickler, pictures, save_npy, tensorflow_layers, write_detector

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import sha256_file
from conceptbench.judges import mtcnn, mtcnn_networks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("mtcnn") / "face_detection")


# -- networks, as the original runs them: the image transposed, channels last ------------------------------------------


def convolved(x, kernel, bias):
    """x: (W, H, C), transposed as the original's; kernel (a, b, C, K) with a along the first axis."""
    a, b, _, count = kernel.shape
    out = np.zeros((x.shape[0] - a + 1, x.shape[1] - b + 1, count))
    for i in range(a):
        for j in range(b):
            out += x[i : i + out.shape[0], j : j + out.shape[1]] @ kernel[i, j].astype(np.float64)
    return out + bias


def pooled(x, size, same):
    """Stride 2; ``same`` adds what lacks, the larger half behind, as TensorFlow does."""
    if same:
        lacks = [max((math.ceil(n / 2) - 1) * 2 + size - n, 0) for n in x.shape[:2]]
        x = np.pad(x, [(n // 2, n - n // 2) for n in lacks] + [(0, 0)], constant_values=-np.inf)
    span = [(n - size) // 2 + 1 for n in x.shape[:2]]
    return np.array([[x[2 * i : 2 * i + size, 2 * j : 2 * j + size].max((0, 1)) for j in range(span[1])] for i in range(span[0])])


PLANS = {
    "det1.npy": (["conv1", "PReLU1", (2, True), "conv2", "PReLU2", "conv3", "PReLU3"], ("conv4-1", "conv4-2")),
    "det2.npy": (["conv1", "prelu1", (3, True), "conv2", "prelu2", (3, False), "conv3", "prelu3", "conv4", "prelu4"], ("conv5-1", "conv5-2")),
    "det3.npy": (
        ["conv1", "prelu1", (3, True), "conv2", "prelu2", (3, False), "conv3", "prelu3", (2, True), "conv4", "prelu4", "conv5", "prelu5"],
        ("conv6-1", "conv6-2"),
    ),
}


def applied(x, layer):
    if "alpha" in layer:
        return np.maximum(x, 0) + layer["alpha"] * np.minimum(x, 0)
    if layer["weights"].ndim == 2:
        return x.reshape(-1) @ layer["weights"].astype(np.float64) + layer["biases"]
    return convolved(x, layer["weights"], layer["biases"])


def by_hand(name, layers, image):
    """(5, H, W) or (5,) of an image (H, W, 3) in [0, 255]."""
    x = (image.astype(np.float64).transpose(1, 0, 2) - 127.5) * 0.0078125
    plan, heads = PLANS[name]
    for step in plan:
        x = pooled(x, *step) if isinstance(step, tuple) else applied(x, layers[step])
    score, shifts = (applied(x, layers[h]) for h in heads)
    face = 1 / (1 + np.exp(score[..., 0] - score[..., 1]))
    return np.concatenate([face[..., None], shifts], -1).T


@pytest.mark.parametrize(("name", "shape"), [("det1.npy", (17, 24)), ("det1.npy", (12, 12)), ("det2.npy", (24, 24)), ("det3.npy", (48, 48))])
def test_networks_equal_the_original_on_transposed_images(folder, name, shape):
    path = folder / name
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    stage = mtcnn_networks.load_stage(STAGES[name](), path)
    with torch.inference_mode():
        found = stage(mtcnn_networks.network_input(image[None]))[0].numpy()
    wanted = by_hand(name, mtcnn_networks.read_layers(path), image)
    assert found.shape == wanted.shape and np.abs(wanted).max() > 0.1 and np.ptp(wanted) > 0.05
    np.testing.assert_allclose(found, wanted, atol=2e-5)


# -- arithmetic of boxes ---------------------------------------------------------------------------------------------


def random_boxes(count, seed):
    generator = np.random.default_rng(seed)
    start = generator.integers(-20, 80, (count, 2))
    return np.concatenate([start, start + generator.integers(5, 60, (count, 2)), generator.permutation(count)[:, None] / count], 1).astype(float)


@pytest.mark.parametrize("beside", ["union", "smaller"])
@pytest.mark.parametrize("most", [0.3, 0.5, 0.7])
def test_suppression_equals_a_loop_over_pairs(beside, most):
    def overlap(a, b):
        across, down = (sum(1 for v in range(-30, 150) if a[i] <= v <= a[i + 2] and b[i] <= v <= b[i + 2]) for i in (0, 1))
        areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
        return across * down / (sum(areas) - across * down if beside == "union" else min(areas))

    boxes = random_boxes(60, 2)
    stay = []
    for i in sorted(range(60), key=lambda i: -boxes[i, 4]):
        if all(overlap(boxes[i], boxes[j]) <= most for j in stay):
            stay.append(i)
    assert 2 < len(stay) < 60 and mtcnn.kept(boxes, most, beside).tolist() == stay
    assert mtcnn.kept(np.empty((0, 5)), most, beside).tolist() == []


def test_an_overlap_at_the_limit_stays():
    halves = np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 4, 0.8]])  # 100 and 50 px, 50 in common
    assert mtcnn.kept(halves, 0.5, "union").tolist() == [0, 1] and mtcnn.kept(halves, 0.49, "union").tolist() == [0]
    assert mtcnn.kept(halves, 0.99, "smaller").tolist() == [0]


def test_shifts_and_squares_equal_loops():
    boxes, shifts = random_boxes(20, 3), np.random.default_rng(4).normal(0, 0.2, (20, 4))
    for one in (0, 1):
        moved = mtcnn.shifted(boxes, shifts, inclusive=bool(one))
        for (x1, y1, x2, y2, score), (a, b, c, d), out in zip(boxes, shifts, moved, strict=True):
            w, h = x2 - x1 + one, y2 - y1 + one
            assert out.tolist() == pytest.approx([x1 + a * w, y1 + b * h, x2 + c * w, y2 + d * h, score])
    for (x1, y1, x2, y2, score), out in zip(boxes, mtcnn.squared(boxes), strict=True):
        side = max(x2 - x1, y2 - y1) / 2
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        assert out.tolist() == pytest.approx([x - side, y - side, x + side, y + side, score])


def test_windows_of_the_first_network():
    maps = np.zeros((5, 3, 4), np.float32)
    maps[0, 1, 2], maps[0, 2, 0], maps[0, 0, 0] = 0.6, 0.9, 0.5999
    maps[1:] = np.arange(4 * 12, dtype=np.float32).reshape(4, 3, 4)
    found = mtcnn.proposed(maps, 0.5, 0.6)
    # column by column; a window of 12 px every 2 px, from the pixel 2 i + 1 to 2 i + 12
    assert found[:, :4].tolist() == [[2, 10, 24, 32], [10, 6, 32, 28]] and found[:, 4].tolist() == pytest.approx([0.9, 0.6])
    assert found[:, 5:].tolist() == [[8, 20, 32, 44], [6, 18, 30, 42]]
    alone = mtcnn.proposed(maps, 0.5, 0.7)
    assert alone[:, :4].tolist() == [[2, 10, 24, 32]]
    assert alone[:, 5:].tolist() == [maps[1:, 2, 3].tolist()]  # the slip: from the column on the other side
    assert mtcnn.proposed(maps, 0.5, 0.95).shape == (0, 9)


def test_the_pyramid_begins_with_the_smallest_face_and_ends_with_one_window():
    scales = mtcnn.pyramid(160, 200)
    assert scales[0] == 0.6 and np.allclose(np.diff(np.log(scales)), math.log(0.709))
    assert 160 * scales[-1] >= 12 > 160 * scales[-1] * 0.709
    assert mtcnn.pyramid(19, 500) == []


def test_crops_are_black_outside_and_reduced_by_area():
    image = np.random.default_rng(6).integers(1, 256, (20, 30, 3), dtype=np.uint8)
    for box in ([-3, 5, 8, 16], [25, -5, 36, 6], [4, 4, 15, 15]):
        x1, y1 = box[:2]
        whole = np.zeros((12, 12, 3))
        for i in range(12):
            for j in range(12):
                if 1 <= y1 + i <= 20 and 1 <= x1 + j <= 30:
                    whole[i, j] = image[y1 + i - 1, x1 + j - 1]
        assert np.array_equal(mtcnn.crop(image, np.array(box, float), 12), whole)
        thirds = whole.reshape(4, 3, 4, 3, 3).mean((1, 3))
        np.testing.assert_allclose(mtcnn.crop(image, np.array(box, float), 4), thirds, atol=1e-9)


def test_boxes_without_a_pixel_of_the_image_are_dropped():
    boxes = np.array([[-9.9, 1, -0.2, 5, 0.9], [-9.9, 1, 1.7, 5, 0.8], [30.5, 20.9, 40, 40, 0.7], [31, 1, 40, 5, 0.6], [9, 9, 3, 12, 0.5]])
    assert mtcnn.whole_pixels(boxes, 20, 30).tolist() == [[-9, 1, 1, 5, 0.8], [30, 20, 40, 40, 0.7]]


def test_the_three_stages_together_equal_loops(folder):
    """The cascade from the same networks, box by box."""
    finder, image = mtcnn.MTCNN(folder), pictures()[2]
    height, width = image.shape[:2]
    finder.first.heads["conv4-2"].weight *= 4  # such shifts that a pixel more or less is seen
    finder.second.heads["conv5-1"].bias += torch.tensor([-0.5, 0.5])
    finder.third.heads["conv6-1"].bias += torch.tensor([-1.0, 1.0])  # and so many faces that some lie in others

    def square(x1, y1, x2, y2):
        side = max(x2 - x1, y2 - y1)
        left, top = x1 + (x2 - x1) / 2 - side / 2, y1 + (y2 - y1) / 2 - side / 2
        return [math.trunc(v) for v in (left, top, left + side, top + side)]

    def looked(stage, boxes, size, threshold):
        out = []
        for box in boxes:
            if min(box[2], width) < max(box[0], 1) or min(box[3], height) < max(box[1], 1):
                continue
            probability, *shifts = stage(mtcnn_networks.network_input(mtcnn.crop(image, np.array(box, float), size)[None]))[0].tolist()
            if probability > threshold:
                out.append((box, probability, shifts))
        return out

    def best(found, most, beside):
        if not found:
            return []
        return [found[i] for i in mtcnn.kept(np.array([[*b, p] for b, p, _ in found], float), most, beside)]

    def moved(found, one):
        return [
            ([b[0] + s[0] * w, b[1] + s[1] * h, b[2] + s[2] * w, b[3] + s[3] * h], p) for b, p, s in found for w, h in [(b[2] - b[0] + one, b[3] - b[1] + one)]
        ]

    with torch.inference_mode():
        found = []
        for scale in mtcnn.pyramid(height, width):
            small = cv2.resize(image, (math.ceil(width * scale), math.ceil(height * scale)), interpolation=cv2.INTER_AREA)
            rows = mtcnn.proposed(finder.first(mtcnn_networks.network_input(small[None]))[0].numpy(), scale, 0.6)
            found += best([(list(r[:4]), r[4], list(r[5:])) for r in rows], 0.5, "union")
        found = best(found, 0.7, "union")
        counts = [len(found)]
        found = best(looked(finder.second, [square(*b) for b, _ in moved(found, 0)], 24, 0.7), 0.7, "union")
        counts.append(len(found))
        found = looked(finder.third, [square(*b) for b, _ in moved(found, 1)], 48, 0.7)
        last = best([(b, p, None) for b, p in moved(found, 1)], 0.7, "smaller")
        counts.append(len(last))
    assert counts[0] > counts[1] > counts[2] > 2
    np.testing.assert_allclose(finder(image), [[*b, p] for b, p, _ in last], atol=1e-4)


def test_an_image_too_small_for_any_face(folder):
    assert mtcnn.MTCNN(folder)(np.zeros((16, 16, 3), np.uint8)).shape == (0, 5)


# -- files -----------------------------------------------------------------------------------------------------------


class Evil:
    """What an attacker saves."""

    def __reduce__(self):
        return os.mkdir, ("never-made",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for layers in ({"conv1": Evil()}, Evil()):
        save_npy(tmp_path / "det1.npy", layers, pickle.Pickler)
        with pytest.raises(UserInputError, match=r"wants to call \w+\.mkdir, and nothing was run"):
            mtcnn_networks.read_layers(tmp_path / "det1.npy")
    assert not (tmp_path / "never-made").exists()


@pytest.mark.parametrize(
    "code",
    [
        "cbuiltins\neval\n(S'1'\ntR.",
        "cnumpy\nfromfile\n(S'/etc/hostname'\ntR.",
        "cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(S'O8'\ntRS'12345678'\ntR.",  # numpy would take the text for an address
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'V8'\ntRI00\nS'12345678'\ntb.",
    ],
)
def test_a_pickle_cannot_reach_numpy(tmp_path, code):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(code.encode())
    with pytest.raises(UserInputError, match=r"no file of MTCNN's weights: (it wants to call|'str' object is not callable|it has an array of type V8)"):
        mtcnn_networks.read_layers(tmp_path / "x.npy")


def test_arrays_of_either_order_are_read(tmp_path):
    layers = {"a": {"weights": np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)), "biases": np.arange(3, dtype="<f4")}}
    np.save(tmp_path / "x.npy", layers, allow_pickle=True)
    assert mtcnn_networks.read_layers(tmp_path / "x.npy")["a"]["weights"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("pickler", "protocol"), [(Python2Pickler, 2), *((pickle.Pickler, p) for p in (0, 2, 4))])
def test_pickles_of_any_age_are_read(tmp_path, pickler, protocol):
    layers = tensorflow_layers(mtcnn_networks.refining_network(), 0)
    save_npy(tmp_path / "det2.npy", layers, pickler, protocol)
    assert (b"cnumpy.core.multiarray" in (tmp_path / "det2.npy").read_bytes()) == (pickler is Python2Pickler)
    read = mtcnn_networks.read_layers(tmp_path / "det2.npy")
    assert all(np.array_equal(read[n][k], v) for n, kinds in layers.items() for k, v in kinds.items())
    np.save(tmp_path / "now.npy", layers, allow_pickle=True)
    assert mtcnn_networks.read_layers(tmp_path / "now.npy").keys() == layers.keys()


def test_weights_of_another_network_are_recognised(folder, tmp_path):
    path = folder / "det2.npy"
    with pytest.raises(UserInputError, match=rf"other weights than expected: 'body\.PReLU1\.weight' is missing.*sha256 {sha256_file(path)}"):
        mtcnn_networks.load_stage(mtcnn_networks.proposal_network(), path)
    layers = mtcnn_networks.read_layers(path)
    layers["conv3"]["weights"] = layers["conv3"]["weights"][:1]
    save_npy(tmp_path / "det2.npy", layers)
    with pytest.raises(UserInputError, match=r"'body\.conv3\.weight' is \(64, 48, 2, 1\), not \(64, 48, 2, 2\)"):
        mtcnn_networks.load_stage(mtcnn_networks.refining_network(), tmp_path / "det2.npy")
    for content in (b"", b"<html>", b"\x93NUMPY\x01\x00"):
        (tmp_path / "det1.npy").write_bytes(content)
        with pytest.raises(UserInputError, match="no file of MTCNN's weights"):
            mtcnn_networks.load_stage(mtcnn_networks.proposal_network(), tmp_path / "det1.npy")
