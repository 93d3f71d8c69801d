"""Labelled images: scikit-learn's digits, which come with it, and MNIST, CIFAR-10 and STL-10 as torchvision keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from conceptbench.core.data import data_folder as data_folder  # also known by this name
from conceptbench.core.errors import UserInputError, unknown_name

Split = Literal["train", "test", "all"]
STL10_SIZE = 64  # pixels a side in Heng and Soh 2023; the files have 96
STL10_TEST = 1000  # of the 13 000 labelled images
TEST_EVERY = 5  # of the digits

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ClassImages:
    """Labelled images.

    Attributes:
        images: (N, H, W, 3) uint8 RGB; gray ones have three equal channels.
        labels: (N,) int64, indices of ``classes``.
        classes: names of all classes, whether or not there are images of them.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, names: Iterable[str]) -> ClassImages:
        """The images of the other classes; labels keep their numbers.

        Raises:
            UserInputError: no such class, or nothing is left.
        """
        out = set()
        for name in names:
            if name not in self.classes:
                raise unknown_name("class", name, self.classes)
            out.add(self.classes.index(name))
        kept = ~np.isin(self.labels, sorted(out))
        if not kept.any():
            raise UserInputError("all classes were left out", f"keep at least one of {', '.join(self.classes)}")
        return ClassImages(self.images[kept], self.labels[kept], self.classes)


@dataclass(frozen=True)
class _Source:
    """Files of a data set below the data folder with their md5 sums, which classes there are, what reads them and what downloads them."""

    files: tuple[tuple[str, str], ...]
    classes: tuple[str, ...]
    read: Callable[[Path, Split], tuple[Images, Labels]]
    download: Callable[[Path], Any]


def load_images(name: str, split: Split = "train", folder: str | Path | None = None, download: bool = False) -> ClassImages:
    """The images of a data set, in a fixed order.

    ``digits``: 8 px, every fifth image is for testing. ``mnist``: 28 px, ``cifar10``: 32 px, their own splits. ``stl10``: 64 px, from the
    labelled images of both its splits, 1000 of them at random for testing (as Heng and Soh 2023 do for their classifier).

    Args:
        name: of :data:`DATASETS`.
        split: ``train``, ``test``, or ``all``: one after the other.
        folder: see :func:`data_folder`; the digits need none.
        download: fetch what is not there.

    Raises:
        UserInputError: no such data set or split; files are missing or damaged, or cannot be downloaded.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    if split not in ("train", "test", "all"):
        raise unknown_name("split", split, ("train", "test", "all"))
    source, root = _SOURCES[name], data_folder(folder)
    if download and any(not (root / file).exists() for file, _ in source.files):
        _download(name, root)
    _check_files(name, root)
    parts = [source.read(root, s) for s in (("train", "test") if split == "all" else (split,))]
    return ClassImages(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), source.classes)


def _download(name: str, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        _SOURCES[name].download(root)
    except (URLError, RuntimeError, OSError) as error:
        raise UserInputError(f"cannot download {name}: {error}", f"try again, or put these files below {root}: {_names(name)}") from error


def _names(name: str) -> str:
    return ", ".join(file for file, _ in _SOURCES[name].files)


def _check_files(name: str, root: Path) -> None:
    """Refuses a data set of which a file is missing or another than it should be."""
    missing = [file for file, _ in _SOURCES[name].files if not (root / file).exists()]
    model = "cvae" if name == "mnist" else "ddpm"
    command = f"conceptbench train {model} {name} --download"
    if missing:
        other = "" if root == data_folder() else f" --data-folder {root}"
        raise UserInputError(f"data set {name} is not in {root}: there is no {', '.join(missing)}", f"put the files there, or with a network: {command}{other}")
    for file, wanted in _SOURCES[name].files:
        with (root / file).open("rb") as opened:
            found = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != wanted:
            raise UserInputError(
                f"{root / file} is damaged or another file: its md5 is {found}, not {wanted}", f"delete it and its archive, and with a network: {command}"
            )


def _gray(images: Images) -> Images:
    """(N, H, W) to (N, H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(images[..., None], (*images.shape, 3)))


def _read_digits(_root: Path, split: Split) -> tuple[Images, Labels]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(images)) % TEST_EVERY == TEST_EVERY - 1) == (split == "test")
    return _gray(images[chosen]), data.target[chosen].astype(np.int64)


def _read_mnist(root: Path, split: Split) -> tuple[Images, Labels]:
    start = "t10k" if split == "test" else "train"
    images = np.fromfile(root / f"MNIST/raw/{start}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)  # behind four numbers of four bytes
    labels = np.fromfile(root / f"MNIST/raw/{start}-labels-idx1-ubyte", np.uint8)[8:]
    return _gray(images), labels.astype(np.int64)


def _read_cifar10(root: Path, split: Split) -> tuple[Images, Labels]:
    from torchvision.datasets import CIFAR10

    data = CIFAR10(root, train=split != "test")
    return np.ascontiguousarray(data.data), np.array(data.targets, np.int64)


def _read_stl10(root: Path, split: Split) -> tuple[Images, Labels]:
    folder = root / "stl10_binary"
    images = np.concatenate([np.fromfile(folder / f"{s}_X.bin", np.uint8).reshape(-1, 3, 96, 96) for s in ("train", "test")])
    labels = np.concatenate([np.fromfile(folder / f"{s}_y.bin", np.uint8) for s in ("train", "test")]).astype(np.int64) - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    rows = (order[:STL10_TEST] if split == "test" else order[STL10_TEST:]).sort().values.numpy()
    return _shrunk(images[rows].transpose(0, 3, 2, 1), STL10_SIZE), labels[rows]  # the files go down the columns first


def _shrunk(images: Images, size: int) -> Images:
    """(N, H, W, 3) to (N, size, size, 3): bilinear with antialiasing, in blocks because floats need four times the memory."""
    out = []
    for start in range(0, len(images), 500):
        x = torch.tensor(np.ascontiguousarray(images[start : start + 500])).permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        out.append(x.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(out)


def _fetch(kind: str) -> Callable[[Path], Any]:
    def fetch(root: Path) -> Any:
        import torchvision

        return getattr(torchvision.datasets, kind)(str(root), download=True)

    return fetch


_DIGITS = tuple(str(i) for i in range(10))
_SOURCES = {
    "digits": _Source((), _DIGITS, _read_digits, lambda _root: None),
    "mnist": _Source(  # sums of the unpacked files: torchvision knows those of the packed ones only, and never looks at them again
        (
            ("MNIST/raw/train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
            ("MNIST/raw/train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            ("MNIST/raw/t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
            ("MNIST/raw/t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
        ),
        _DIGITS,
        _read_mnist,
        _fetch("MNIST"),
    ),
    "cifar10": _Source(
        (
            *(
                (f"cifar-10-batches-py/data_batch_{i + 1}", md5)
                for i, md5 in enumerate(
                    (
                        "c99cafc152244af753f735de768cd75f",
                        "d4bba439e000b95fd0a9bffe97cbabec",
                        "54ebc095f3ab1f0389bbae665268c751",
                        "634d18415352ddfa80567beed471001a",
                        "482c414d41f54cd18b22e5b47cb7c3cb",
                    )
                )
            ),
            ("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
            ("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        ),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        _read_cifar10,
        _fetch("CIFAR10"),
    ),
    "stl10": _Source(
        (
            ("stl10_binary/train_X.bin", "918c2871b30a85fa023e0c44e0bee87f"),
            ("stl10_binary/train_y.bin", "5a34089d4802c674881badbb80307741"),
            ("stl10_binary/test_X.bin", "7f263ba9f9e0b06b93213547f721ac82"),
            ("stl10_binary/test_y.bin", "36f9794fa4beb8a2c72628de14fa638e"),
        ),
        ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        _read_stl10,
        _fetch("STL10"),
    ),
}
DATASETS = tuple(_SOURCES)
"""Names of the data sets."""
