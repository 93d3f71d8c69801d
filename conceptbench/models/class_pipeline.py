"""Class-conditional models as folders: networks, a scheduler where there is one, and the names of the classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, ModelMixin, UNet2DModel

from conceptbench import __version__
from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.files import pretty_json, write_text
from conceptbench.models.cvae import CVAE

INDEX = "model_index.json"
NAME = "ClassPipeline"
PARTS: dict[str, dict[str, Any]] = {"ddpm": {"unet": UNet2DModel, "scheduler": DDPMScheduler}, "cvae": {"vae": CVAE}}
"""family -> component -> its class."""


class ClassPipeline:
    """What belongs to a class-conditional model, as diffusers pipelines have it.

    Args:
        family: ``ddpm`` or ``cvae``.
        classes: their names, in the order of the network's labels.
        components: by name, those of :data:`PARTS`.
    """

    def __init__(self, family: str, classes: Sequence[str], components: dict[str, Any]) -> None:
        assert set(components) == set(PARTS[family]), f"{family} has {sorted(PARTS[family])}"
        self.family, self.classes, self.components = family, tuple(classes), components
        self.config = {"family": family, "classes": list(classes)}

    @property
    def scheduler(self) -> Any:
        """The scheduler of a ddpm."""
        return self.components["scheduler"]

    def to(self, device: str | torch.device) -> ClassPipeline:
        """Moves the networks."""
        for part in self.components.values():
            if isinstance(part, ModelMixin):
                part.to(device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the folder: an index, and a sub-folder for each component."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in self.components.items():
            part.save_pretrained(folder / name)
        write_text(folder / INDEX, pretty_json({"_class_name": NAME, "_conceptbench_version": __version__, **self.config}))

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> ClassPipeline:
        """Reads what :meth:`save_pretrained` wrote; weights in another precision are converted.

        Raises:
            MissingWeightsError: a component is not there.
            UserInputError: the index is of another form.
        """
        folder = Path(folder)
        index = json.loads((folder / INDEX).read_text())
        family, classes = index.get("family"), index.get("classes")
        if family not in PARTS or not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
            raise UserInputError(f"{folder / INDEX} names no family of class-conditional models and its classes", f"families: {', '.join(PARTS)}")
        try:
            parts = {
                n: kind.from_pretrained(folder / n, **({"torch_dtype": dtype} if issubclass(kind, ModelMixin) else {})) for n, kind in PARTS[family].items()
            }
        except (OSError, ValueError) as error:
            raise MissingWeightsError(f"cannot load {folder}: {error}", "train it again, or copy the whole folder") from error
        return cls(family, classes, parts)


def is_class_folder(folder: Path) -> bool:
    """Whether a folder is one of :class:`ClassPipeline`."""
    try:
        return bool(json.loads((folder / INDEX).read_text()).get("_class_name") == NAME)
    except (OSError, ValueError):
        return False
