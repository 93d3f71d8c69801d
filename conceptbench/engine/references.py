"""Reference sets: real images that a model's images are compared with, judged once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.files import key_of, sha256_bytes
from conceptbench.core.registry import REFERENCES
from conceptbench.core.schemas import Concept
from conceptbench.engine.judging import judge_key
from conceptbench.engine.pictures import chosen_pictures, folder_digest, read_picture
from conceptbench.engine.reference_folders import folder_reference
from conceptbench.engine.store import Store

BATCH = 64
SEED = 0
WHAT = "reference folder"


class References:
    """What judges say of reference sets, from the store or asked and stored.

    Args:
        judges: by name.
        store: of answers.
    """

    def __init__(self, judges: Mapping[str, Any], store: Store) -> None:
        self._judges, self._store = judges, store
        self._known: dict[str, dict[str, NDArray[Any]]] = {}
        self._digests: dict[str, str] = {}

    def said(self, judge: str, name: str, n: int | None, concepts: Sequence[Concept]) -> tuple[dict[str, NDArray[Any]], str]:
        """Named arrays of all images of a reference set, and the hash of the images.

        Args:
            judge: its name.
            name: of a registered set, or a folder.
            n: how many images; None for all of a folder.
            concepts: what a registered set shall show.

        Raises:
            UserInputError: there is no such set or folder, or it has fewer images.
        """
        digest = self.digest(name, n, concepts)
        known = f"{judge}/{digest}"
        if known not in self._known:
            self._known[known] = self._stored(judge, digest) or self._asked(judge, digest, name, n, concepts)
        return self._known[known], digest

    def digest(self, name: str, n: int | None, concepts: Sequence[Concept]) -> str:
        """The hash of a set's pixels, or of a folder's files."""
        asked = key_of([name, n, list(concepts)])
        if asked not in self._digests:
            self._digests[asked] = self._digest(name, n, concepts)
        return self._digests[asked]

    def check(self, name: str, n: int | None) -> None:
        """Refuses what is no reference set, without judging it."""
        if name in REFERENCES.names() and n is None:
            raise UserInputError(f"the reference set {name!r} is made on demand and has no size of its own", "say how many images with the option n")
        own = folder_reference(name)
        if own is not None:
            own.check(n)
        else:
            folder = self.folder(name)
            _ = folder and chosen_pictures(folder, n, WHAT)

    def folder(self, name: str) -> Path | None:
        """The folder that a set is: the user's, or a registered one's; None for a set that is made on demand.

        Raises:
            UserInputError: there is no such set, or its folder is not here.
        """
        if name in REFERENCES.names():
            own = folder_reference(name)
            return None if own is None else own.folder()
        if not Path(name).is_dir():
            raise unknown_name("reference set", name, ["base", *REFERENCES.names()], "or a folder of images")
        return Path(name)

    def _digest(self, name: str, n: int | None, concepts: Sequence[Concept]) -> str:
        self.check(name, n)
        folder = self.folder(name)
        if folder is None:
            return sha256_bytes(REFERENCES.load(name)(concepts, n, SEED).tobytes())
        return folder_digest(folder, n, WHAT)

    def _stored(self, judge: str, group: str) -> dict[str, NDArray[Any]] | None:
        found = self._store.read_judged(judge_key(self._judges[judge].card), f"reference-{group}")
        if not found:
            return None
        ordered = [found[k] for k in sorted(found, key=int)]
        return {name: np.stack([one[name] for one in ordered]) for name in ordered[0]}

    def _asked(self, judge: str, group: str, name: str, n: int | None, concepts: Sequence[Concept]) -> dict[str, NDArray[Any]]:
        parts: list[dict[str, NDArray[Any]]] = []
        for images in self._batches(name, n, concepts):
            parts.append(dict(self._judges[judge](images)))
        said = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        count = len(next(iter(said.values())))
        self._store.write_judged(judge_key(self._judges[judge].card), f"reference-{group}", [str(i) for i in range(count)], said)
        return said

    def _batches(self, name: str, n: int | None, concepts: Sequence[Concept]) -> Iterator[NDArray[np.uint8]]:
        """The images in batches of one size each, in the set's order; of a folder one batch at a time is in memory."""
        folder = self.folder(name)
        if folder is None:
            made = REFERENCES.load(name)(concepts, n, SEED)
            yield from (made[i : i + BATCH] for i in range(0, len(made), BATCH))
            return
        batch: list[NDArray[np.uint8]] = []
        for path in chosen_pictures(folder, n, WHAT):
            pixels = read_picture(path)
            if batch and (batch[0].shape != pixels.shape or len(batch) == BATCH):
                yield np.stack(batch)
                batch = []
            batch.append(pixels)
        yield np.stack(batch)
