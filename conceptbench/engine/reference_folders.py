"""Reference sets that are folders of real images in the data folder: they never ship, and are too large to be held in memory."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.data import data_folder
from conceptbench.core.errors import MissingDataError, UserInputError
from conceptbench.core.registry import REFERENCES
from conceptbench.core.schemas import Concept
from conceptbench.engine.pictures import chosen_pictures, square_pictures


@dataclass(frozen=True)
class ReferenceFolder:
    """A folder of real images as a registered reference set: the first n of them in the order of their names, whatever the concepts.

    Attributes:
        name: registered name.
        place: below the data folder.
        summary: what the images are.
        archive: address of a zip file with a folder ``top`` of them.
        top: name of that folder.
    """

    name: str
    place: str
    summary: str
    archive: str
    top: str

    def folder(self) -> Path:
        """Where the images are.

        Raises:
            MissingDataError: there is no such folder, or no image in it; with the command that gets them.
        """
        path = data_folder() / self.place
        try:
            chosen_pictures(path, 1)
        except UserInputError as error:
            message = f"the reference set {self.name!r} does not ship with ConceptBench: {error.message}"
            raise MissingDataError(message, f"put the images there ({self.summary}): {self.command(path)}") from error
        return path

    def check(self, n: int | None) -> None:
        """Refuses a folder that is missing or has fewer than n images.

        Raises:
            UserInputError: it is so; with what to do.
        """
        path = self.folder()
        try:
            chosen_pictures(path, n)
        except UserInputError as error:
            raise UserInputError(f"the reference set {self.name!r} is not whole: {error.message}", f"get it again: {self.command(path)}") from error

    def command(self, path: Path) -> str:
        """The command that fills a folder."""
        above, there = path.parent, path.parent / f"{self.name}.zip"
        zipped, top, folder = (shlex.quote(str(p)) for p in (there, above / self.top, path))
        return f"curl -fL --create-dirs -o {zipped} {self.archive} && unzip -q {zipped} -d {shlex.quote(str(above))} && mv {top} {folder}"

    def __call__(self, concepts: Sequence[Concept], n: int, seed: int) -> NDArray[np.uint8]:  # noqa: ARG002 - as other reference sets are called
        """The images cut to their middle square and resized to 256 pixels, to look at a few; metrics see them as they are.

        Returns:
            (n, 256, 256, 3) uint8 RGB.
        """
        self.check(n)
        return square_pictures(self.folder(), n, 256)


coco_30k = ReferenceFolder(
    name="coco-30k",
    place="coco-val2014",
    summary="40 504 images of COCO val2014, 6 GB; KPOP does not say which 30 000 it took",
    archive="http://images.cocodataset.org/zips/val2014.zip",
    top="val2014",
)
"""What KPOP and others compare images of COCO's captions with."""


def folder_reference(name: str) -> ReferenceFolder | None:
    """The registered reference set of a name, if it is a folder."""
    found = REFERENCES.load(name) if name in REFERENCES.names() else None
    return found if isinstance(found, ReferenceFolder) else None
