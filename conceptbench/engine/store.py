"""The content-addressed store: a thing is there if a file has its key *and* its checksum.

::

    erasures/KEY.safetensors            what an eraser yielded; the header holds the checksum of its tensors
    images/K/KEY.png                    one image; its text chunk holds the key and the checksum of its pixels
    judged/JUDGE/GROUP/CHECKSUM.npz     what a judge said of a batch of images, for one erasure
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from conceptbench.core.errors import StoreError
from conceptbench.core.files import sha256_bytes, write_bytes
from conceptbench.core.metric import Outputs


class Store:
    """A folder of results by content key. Safe to share: every file appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    # -- erasures ----------------------------------------------------------------------------------------------------
    def erasure_path(self, key: str) -> Path:
        """Where the erasure of a recipe key is, or will be."""
        return self.root / "erasures" / f"{key}.safetensors"

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

    def write_image(self, key: str, pixels: NDArray[np.uint8]) -> None:
        """Writes an image (H, W, 3) uint8 as PNG with its key and the checksum of its pixels."""
        info = PngImagePlugin.PngInfo()
        info.add_text("conceptbench-key", key)
        info.add_text("conceptbench-pixels", sha256_bytes(pixels.tobytes()))
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1, pnginfo=info)
        write_bytes(self.image_path(key), out.getvalue())

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
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise StoreError(f"cannot read the image {path}: {error}", "delete it and run again: it is made anew") from error
        if text.get("conceptbench-key") != key or text.get("conceptbench-pixels") != sha256_bytes(pixels.tobytes()):
            raise StoreError(f"the image {path} is not what its key says", "delete it and run again: it is made anew")
        return pixels

    # -- judged ------------------------------------------------------------------------------------------------------
    def _judged_folder(self, judge: str, group: str) -> Path:
        return self.root / "judged" / judge[:32] / group[:32]

    def write_judged(self, judge: str, group: str, keys: list[str], outputs: Outputs) -> None:
        """Writes what a judge said of some images as one immutable shard, named by its own checksum."""
        out = io.BytesIO()
        np.savez_compressed(out, keys=np.array(keys), **outputs)  # type: ignore[arg-type]
        data = out.getvalue()
        write_bytes(self._judged_folder(judge, group) / f"{sha256_bytes(data)}.npz", data)

    def read_judged(self, judge: str, group: str) -> dict[str, Mapping[str, NDArray[Any]]]:
        """All that a judge said of a group's images: image key -> named arrays. A damaged shard counts as not there."""
        merged: dict[str, Mapping[str, NDArray[Any]]] = {}
        folder = self._judged_folder(judge, group)
        for path in sorted(folder.glob("*.npz")) if folder.is_dir() else ():
            data = path.read_bytes()
            if sha256_bytes(data) != path.stem:
                continue
            with np.load(io.BytesIO(data)) as shard:
                arrays = {n: shard[n] for n in shard.files}
            for i, key in enumerate(arrays.pop("keys")):
                merged[str(key)] = {n: a[i] for n, a in arrays.items()}
        return merged
