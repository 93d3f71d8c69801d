from __future__ import annotations

import dataclasses
import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from conceptbench.classes import datasets
from conceptbench.classes.datasets import data_folder, load_images
from conceptbench.core.errors import UserInputError

RNG = np.random.default_rng(3)


def accept(name, root, monkeypatch):
    """Makes the files that are there the right ones, and gives their sums by file name."""
    source = datasets._SOURCES[name]
    files = tuple((f, hashlib.md5((root / f).read_bytes()).hexdigest()) for f, _ in source.files)
    monkeypatch.setitem(datasets._SOURCES, name, dataclasses.replace(source, files=files))
    return {f.rpartition("/")[2]: md5 for f, md5 in files}


def fake_mnist(root):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    made = {}
    for start, n in (("train", 7), ("t10k", 4)):
        images, labels = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8), RNG.integers(0, 10, n, dtype=np.uint8)
        (folder / f"{start}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + images.tobytes())
        (folder / f"{start}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
        made[start] = images, labels
    return made


def test_digits():
    known = load_digits()
    test, train = load_images("digits", "test"), load_images("digits")
    assert (len(train), len(test)) == (1438, 359) and train.classes == tuple("0123456789")
    assert test.images.dtype == np.uint8 and test.images.shape == (359, 8, 8, 3) and test.labels.dtype == np.int64
    assert (test.images[..., 0] == test.images[..., 2]).all() and train.images.min() == 0 and train.images.max() == 255
    np.testing.assert_allclose(test.images[..., 1] / 255, known.images[4::5] / 16, atol=0.5 / 255 + 1e-9)
    np.testing.assert_array_equal(test.labels, known.target[4::5])
    np.testing.assert_array_equal(train.labels[:5], known.target[[0, 1, 2, 3, 5]])
    everything = load_images("digits", "all")
    np.testing.assert_array_equal(everything.images, np.concatenate([train.images, test.images]))


def test_without_a_class():
    train = load_images("digits")
    left = train.without(["3", "8"])
    assert set(left.labels.tolist()) == {0, 1, 2, 4, 5, 6, 7, 9} and left.classes == train.classes
    np.testing.assert_array_equal(left.images, train.images[(train.labels != 3) & (train.labels != 8)])
    assert len(train.without([])) == len(train)
    with pytest.raises(UserInputError, match="unknown class 'three'"):
        train.without(["three"])
    with pytest.raises(UserInputError, match="all classes"):
        train.without(train.classes)


def test_names():
    with pytest.raises(UserInputError, match="unknown data set 'minst'; did you mean 'mnist'"):
        load_images("minst")
    with pytest.raises(UserInputError, match="unknown split 'tests'; did you mean 'test'"):
        load_images("digits", "tests")


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CONCEPTBENCH_DATA", str(tmp_path / "named"))
    assert data_folder() == tmp_path / "named" and data_folder(tmp_path) == tmp_path
    monkeypatch.delenv("CONCEPTBENCH_DATA")
    assert data_folder().parts[-3:] == (".cache", "conceptbench", "data")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "stl10"])
def test_missing(name, tmp_path):
    with pytest.raises(UserInputError) as caught:
        load_images(name, folder=tmp_path)
    message = str(caught.value)
    assert all(file in message for file, _ in datasets._SOURCES[name].files) and str(tmp_path) in message
    assert f"conceptbench train {'cvae' if name == 'mnist' else 'ddpm'} {name} --download" in message


def test_a_download_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: (_ for _ in ()).throw(RuntimeError("no route")))
    with pytest.raises(UserInputError, match="cannot download mnist: no route"):
        load_images("mnist", folder=tmp_path, download=True)


def test_mnist(tmp_path, monkeypatch):
    made = fake_mnist(tmp_path)
    accept("mnist", tmp_path, monkeypatch)
    for split, start in (("train", "train"), ("test", "t10k")):
        data = load_images("mnist", split, tmp_path)
        theirs = torchvision.datasets.MNIST(tmp_path, train=split == "train")
        np.testing.assert_array_equal(data.images, np.repeat(made[start][0][..., None], 3, -1))
        np.testing.assert_array_equal(data.images[..., 0], theirs.data.numpy())
        np.testing.assert_array_equal(data.labels, theirs.targets.numpy())
    assert not set(data.classes) ^ set("0123456789")


def test_a_damaged_file(tmp_path, monkeypatch):
    fake_mnist(tmp_path)
    wanted = accept("mnist", tmp_path, monkeypatch)["t10k-labels-idx1-ubyte"]
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(UserInputError) as caught:
        load_images("mnist", "train", tmp_path)
    assert all(part in str(caught.value) for part in (str(path), found, wanted, "delete it"))


def test_cifar10(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    kind = torchvision.datasets.CIFAR10
    rows = {f: RNG.integers(0, 256, (2, 3072), dtype=np.uint8) for f, _ in (*kind.train_list, *kind.test_list)}
    for i, (file, pixels) in enumerate(rows.items()):
        (folder / file).write_bytes(pickle.dumps({"data": pixels, "labels": [i, i + 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"]}))
    sums = accept("cifar10", tmp_path, monkeypatch)
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(kind, attribute, [[f, sums[f]] for f, _ in getattr(kind, attribute)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    train, test = load_images("cifar10", "train", tmp_path), load_images("cifar10", "test", tmp_path)
    assert train.labels.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5] and test.labels.tolist() == [5, 6]
    np.testing.assert_array_equal(test.images[1], rows["test_batch"][1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert train.classes[:2] == ("airplane", "automobile") and train.images.shape == (10, 32, 32, 3)


def test_stl10(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    smooth = torch.nn.functional.interpolate(torch.rand(10, 3, 12, 12) * 255, (96, 96), mode="bilinear").byte()
    for split, part, labels in (("train", smooth[:6], range(1, 7)), ("test", smooth[6:], range(7, 11))):
        (folder / f"{split}_X.bin").write_bytes(part.transpose(2, 3).contiguous().numpy().tobytes())  # column after column
        (folder / f"{split}_y.bin").write_bytes(bytes(labels))
    accept("stl10", tmp_path, monkeypatch)
    monkeypatch.setattr(datasets, "STL10_TEST", 3)
    train, test = load_images("stl10", "train", tmp_path), load_images("stl10", "test", tmp_path)
    assert sorted([*train.labels, *test.labels]) == list(range(10)) and len(test) == 3 and not np.array_equal(test.labels, [0, 1, 2])
    for data in (train, test):
        wanted = v2.functional.resize(smooth[torch.from_numpy(data.labels)], [64, 64], antialias=True).permute(0, 2, 3, 1)
        assert data.images.shape[1:] == (64, 64, 3) and np.abs(data.images.astype(int) - wanted.numpy()).max() <= 1
    np.testing.assert_array_equal(load_images("stl10", "test", tmp_path).images, test.images)


def test_sums_and_classes_are_those_of_torchvision():
    for name, kind, folder in (("cifar10", torchvision.datasets.CIFAR10, "cifar-10-batches-py"), ("stl10", torchvision.datasets.STL10, "stl10_binary")):
        theirs = {f"{folder}/{f}": md5 for f, md5 in (*kind.train_list, *kind.test_list)}
        if name == "cifar10":
            theirs[f"{folder}/{kind.meta['filename']}"] = kind.meta["md5"]
        ours = dict(datasets._SOURCES[name].files)
        assert ours.items() <= theirs.items() and set(theirs) - set(ours) <= {"stl10_binary/unlabeled_X.bin"}
