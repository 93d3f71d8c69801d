"""The content-addressed store: a thing is there if a file has its key *and* its checksum.

::

    erasures/KEY.safetensors            what an eraser yielded; the header holds the checksum of its tensors
    images/K/KEY.png                    one image; its text chunk holds the key and the checksum of its pixels
    judged/JUDGE/GROUP/CHECKSUM.npz     what a judge said of a batch of images, for one erasure
    training/KEY/NAME.safetensors       an erasure in the making: see conceptbench.engine.training
    locks/KEY                           held while an erasure is made
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from conceptbench.core.errors import StoreError, UserInputError
from conceptbench.core.files import locked, sha256_bytes, write_bytes
from conceptbench.core.judge import Outputs

UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises for files that are truncated, too large, or no image."""
THREADS = 4  # that read and write images: decoding, hashing and the disk take turns


class Store:
    """A folder of results by content key. Safe to share: every file appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sound: set[str] = set()  # images whose content this process has seen
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserInputError(f"cannot use {root} as a store: {error.strerror or error}", "choose a folder with --store") from error

    # -- erasures ----------------------------------------------------------------------------------------------------
    def erasure_path(self, key: str) -> Path:
        """Where the erasure of a recipe key is, or will be."""
        return self.root / "erasures" / f"{key}.safetensors"

    def training_folder(self, key: str) -> Path:
        """Where an erasure in the making keeps its state."""
        return self.root / "training" / key

    def lock(self, key: str, while_waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """An exclusive lock on the making of a unit; another process waits, and then finds it made."""
        return locked(self.root / "locks" / key, while_waiting)

    # -- images ------------------------------------------------------------------------------------------------------
    def image_path(self, key: str) -> Path:
        """Where an image is, or will be."""
        return self.root / "images" / key[:2] / f"{key}.png"

    def has_image(self, key: str) -> bool:
        """Whether a file of that key exists; :meth:`read_image` checks its content."""
        return self.image_path(key).exists()

    def present(self, keys: Iterable[str]) -> set[str]:
        """Which of many keys have an image file; lists folders instead of asking for each file."""
        wanted = set(keys)
        found: set[str] = set()
        for prefix in {k[:2] for k in wanted}:
            folder = self.root / "images" / prefix
            if folder.is_dir():
                found.update(e.name[:-4] for e in os.scandir(folder) if e.name.endswith(".png"))
        return wanted & found

    def digests(self) -> Iterator[bytes]:
        """The keys of all image files, as 32 raw bytes each."""
        folder = self.root / "images"
        for prefix in os.scandir(folder) if folder.is_dir() else ():
            for entry in os.scandir(prefix) if prefix.is_dir() else ():
                if re.fullmatch(r"[0-9a-f]{64}\.png", entry.name):
                    yield bytes.fromhex(entry.name[:64])

    def write_image(self, key: str, pixels: NDArray[np.uint8]) -> None:
        """Writes an image (H, W, 3) uint8 as PNG with its key and the checksum of its pixels."""
        info = PngImagePlugin.PngInfo()
        info.add_text("conceptbench-key", key)
        info.add_text("conceptbench-pixels", sha256_bytes(pixels.tobytes()))
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1, pnginfo=info)
        write_bytes(self.image_path(key), out.getvalue())
        self._sound.add(key)

    def damaged(self, keys: Iterable[str]) -> list[str]:
        """Which of some images are not what their keys say; each is looked at once a process, in threads."""
        unseen = [k for k in keys if k not in self._sound]

        def is_sound(key: str) -> bool:
            try:
                self.read_image(key)
            except StoreError:
                return False
            return True

        with ThreadPoolExecutor(THREADS) as readers:
            sound = list(readers.map(is_sound, unseen, chunksize=64)) if unseen else []
        self._sound.update(k for k, good in zip(unseen, sound, strict=True) if good)
        return [k for k, good in zip(unseen, sound, strict=True) if not good]

    def read_images(self, keys: Sequence[str]) -> NDArray[np.uint8]:
        """Several images of one size (N, H, W, 3), checked."""
        with ThreadPoolExecutor(THREADS) as readers:
            return np.stack(list(readers.map(self.read_image, keys)))

    def read_image(self, key: str) -> NDArray[np.uint8]:
        """Reads an image and checks that it is the one of its key.

        Raises:
            StoreError: it is missing, truncated, foreign, or its pixels changed.
        """
        path = self.image_path(key)
        try:
            with Image.open(path) as image:
                text = dict(getattr(image, "text", {}))
                pixels = np.asarray(image.convert("RGB"), np.uint8)
        except UNREADABLE as error:
            raise StoreError(f"cannot read the image {path}: {error}", "delete it and run again: it is made anew") from error
        if text.get("conceptbench-key") != key or text.get("conceptbench-pixels") != sha256_bytes(pixels.tobytes()):
            raise StoreError(f"the image {path} is not what its key says", "delete it and run again: it is made anew")
        return pixels

    # -- judged ------------------------------------------------------------------------------------------------------
    def _judged_folder(self, judge: str, group: str) -> Path:
        return self.root / "judged" / judge[:32] / group[:32]

    def write_judged(self, judge: str, group: str, keys: Sequence[str], outputs: Outputs) -> None:
        """Writes what a judge said of some images as one immutable shard, named by its own checksum."""
        out = io.BytesIO()
        np.savez_compressed(out, keys=np.array(list(keys)), **outputs)  # type: ignore[arg-type]
        data = out.getvalue()
        write_bytes(self._judged_folder(judge, group) / f"{sha256_bytes(data)}.npz", data)

    def read_judged(self, judge: str, group: str) -> dict[str, Mapping[str, NDArray[Any]]]:
        """All that a judge said of a group's images: image key -> named arrays. A damaged shard counts as not there."""
        merged: dict[str, Mapping[str, NDArray[Any]]] = {}
        folder = self._judged_folder(judge, group)
        for path in sorted(folder.glob("*.npz")) if folder.is_dir() else ():
            arrays = _shard(path)
            if arrays is None:
                continue
            for i, key in enumerate(arrays.pop("keys")):
                merged[str(key)] = {n: a[i] for n, a in arrays.items()}
        return merged


def _shard(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of a shard, or None if the file is not the one of its name."""
    data = path.read_bytes()
    if sha256_bytes(data) != path.stem:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as shard:
            arrays = {n: shard[n] for n in shard.files}
    except (ValueError, OSError, zipfile.BadZipFile):
        return None  # named by its checksum, but nothing that we wrote
    return arrays if "keys" in arrays else None
