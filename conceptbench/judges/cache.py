"""Weights of torchvision in torch's cache."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from conceptbench.core.errors import MissingWeightsError


def cached_weights(judge: str, architecture: str, weights: str) -> tuple[Path, Mapping[str, Tensor]]:
    """The file of torchvision's weights in torch's cache, and its tensors.

    Raises:
        MissingWeightsError: the file is not there or not readable; the hint is the command that fetches it.
    """
    url = torchvision.models.get_model_weights(architecture)[weights].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    command = f"with a network: python -c \"import torchvision; torchvision.models.get_model('{architecture}', weights='{weights}')\""
    if not path.exists():
        raise MissingWeightsError(f"judge {judge!r} needs {path}", command)
    try:
        return path, torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise MissingWeightsError(f"judge {judge!r} cannot read {path}: {cause}", f"delete it and fetch it again, {command}") from error
