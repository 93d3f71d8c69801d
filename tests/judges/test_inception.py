from __future__ import annotations

import io
import os
from pathlib import Path

import inception_weights
import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.files import sha256_file
from conceptbench.judges import inception
from conceptbench.judges.inception import Inception, inception_clean, inception_tf, load_network, resized, weights_path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A torch cache with random weights under the real file name."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    return inception_weights.write_file(folder)


@pytest.fixture(autouse=True)
def one_row(monkeypatch):
    monkeypatch.setattr(inception, "ROWS", 1)  # forwards at 299 px are dear
    monkeypatch.delenv(inception.VARIABLE, raising=False)


@pytest.fixture
def cache(weights, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(weights.parents[1]))
    return weights


def picture(*size):
    """Smooth and noisy parts, (1, H, W, 3)."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(coarse).copy()
    pixels[: size[0] // 2] = rng.integers(0, 256, (size[0] // 2, size[1], 3), np.uint8)
    return pixels[None]


def test_both_judges_are_the_librarys_network(cache, monkeypatch):
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, *a, **k: (reads.append((file, k["weights_only"])), load(file, *a, **k))[1])
    clean, tf = inception_clean(), inception_tf()
    assert [(file == cache, safe) for file, safe in reads] == [(True, True), (False, False)] * 2  # the library reads our bytes only
    assert all(isinstance(file, io.BytesIO) for file, safe in reads if not safe)
    library, file = tf.network, load(cache, weights_only=True)
    assert type(library) is FeatureExtractorInceptionV3 and all(torch.equal(v, file[k]) for k, v in library.state_dict().items())

    native, small = picture(299, 299), picture(40, 32)
    expected = {name: library(torch.tensor(x).permute(0, 3, 1, 2))[0].numpy() for name, x in (("native", native), ("small", small))}
    found = tf(small)["features"]
    assert found.shape == (1, 2048) and found.dtype == np.float32 and (found >= 0).all() and found.std() > 0.01
    assert np.array_equal(found, expected["small"])
    # at 299 px neither resizes, so that both see (x - 128) / 128
    assert np.allclose(clean(native)["features"], expected["native"], rtol=1e-4, atol=1e-5)
    apart = np.abs(clean(small)["features"] - expected["small"]).mean()
    assert apart > 0.01 * expected["small"].mean()  # enlarged in another way

    for judge, name, resize in ((clean, "inception-clean", "PIL bicubic"), (tf, "inception-tf", "TensorFlow 1 bilinear")):
        assert (judge.card.id, judge.card.role, judge.card.sha256, judge.card.labels) == (name, "features", sha256_file(cache), {})
        assert judge.card.source == URL_INCEPTION_V3 and resize in judge.card.preprocessing
    assert not any(p.requires_grad for p in clean.network.parameters()) and not clean.network.training
    for wrong in (native / 255, native.astype(np.float32), native[0], native[..., :1]):
        with pytest.raises(UserInputError, match=r"'inception-clean' takes images .* of bytes in \[0, 255\]"):
            clean(wrong)


@pytest.mark.parametrize("size", [(512, 512), (32, 32), (40, 64), (299, 299)])
def test_clean_resizing_is_pils_in_float(size):
    image = picture(*size)
    found = resized(image)
    assert found.shape == (1, 3, 299, 299) and found.dtype == torch.float32
    for c in range(3):
        expected = np.asarray(Image.fromarray(image[0, :, :, c].astype(np.float32), "F").resize((299, 299), Image.Resampling.BICUBIC))
        assert np.array_equal(found[0, c].numpy(), expected.clip(0, 255))
    if size == (299, 299):
        assert np.array_equal(found[0].permute(1, 2, 0).numpy(), image[0])
    else:
        assert float((found % 1 > 0.01).float().mean()) > 0.2  # not rounded


def test_resizing_keeps_tones_and_stays_in_the_range():
    board = np.zeros((1, 16, 16, 3), np.uint8)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = 255
    x = resized(board)
    assert float(x.min()) == 0 and float(x.max()) == 255 and ((x > 0) & (x < 1)).any()
    assert torch.allclose(resized(np.full((1, 50, 70, 3), (7, 130, 255), np.uint8)).mean((0, 2, 3)), torch.tensor([7.0, 130, 255]), atol=1e-3)


def test_where_weights_are_looked_for(cache, tmp_path, monkeypatch):
    assert weights_path() == cache
    other = tmp_path / "mine.pth"
    other.write_bytes(b"")
    monkeypatch.setenv(inception.VARIABLE, str(other))
    assert weights_path() == other and weights_path(cache) == cache
    monkeypatch.delenv(inception.VARIABLE)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"weights-inception-2015-12-05-6726825d\.pth") as caught:
        inception_clean()
    assert f"curl -L --create-dirs -o '{tmp_path / 'checkpoints' / cache.name}' {URL_INCEPTION_V3}" in caught.value.hint
    monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "nowhere.pth"))
    with pytest.raises(MissingWeightsError, match=r"nowhere\.pth"):
        Inception("x", "tf")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_files_that_are_something_else(tmp_path):
    def file(name, content):
        path = Path(tmp_path / name)
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        return path

    ran = tmp_path / "ran"
    for path in (
        file("evil.pth", {"a": Evil(ran)}),
        file("text.pth", b"<html>not found</html>"),
        file("empty.pth", b""),
        file("other.pth", {"fc.weight": torch.zeros(3)}),
        file("tensor.pth", torch.zeros(3)),
    ):
        with pytest.raises(MissingWeightsError, match=path.name) as caught:
            load_network(path)
        assert "delete it and fetch it again" in caught.value.hint
    assert not ran.exists()


def test_without_the_library(weights, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(MissingWeightsError, match="package torch-fidelity") as caught:
        load_network(weights)
    assert caught.value.hint == "pip install torch-fidelity"
