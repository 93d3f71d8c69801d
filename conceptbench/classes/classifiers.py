"""A classifier's folder, and what it says of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from conceptbench.classes.networks import ImageClassifier, build_classifier
from conceptbench.core.errors import MissingWeightsError
from conceptbench.judges.perceptual import to_range
from conceptbench.models.rows import in_blocks

WEIGHTS, CARD = "classifier.safetensors", "classifier.json"


def rows_of(network: ImageClassifier) -> int:
    """Rows of every forward, see :mod:`conceptbench.models.rows`."""
    return 64 if network.size < 100 else 8


def read_classifier(folder: Path) -> tuple[ImageClassifier, dict[str, Any]]:
    """The network in float32, for inference, and the content of ``classifier.json``.

    Raises:
        MissingWeightsError: a file is not there, or not readable.
    """
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        network = build_classifier(card["network"], len(card["classes"]))
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / WEIGHTS).items()})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise MissingWeightsError(f"cannot load the classifier in {folder}: {str(error).partition(chr(10))[0]}", "train it again") from error
    network.eval().requires_grad_(False)
    return network, card


@torch.inference_mode()
def probabilities(network: ImageClassifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, K) probabilities of the classes for images (N, H, W, 3) uint8."""
    device = next(network.parameters()).device
    logits = in_blocks(lambda x: network(x.to(device)).cpu(), rows_of(network), to_range(images))
    return logits.log_softmax(-1).exp().numpy()


@torch.inference_mode()
def features(network: ImageClassifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, D) outputs of the penultimate layer for images (N, H, W, 3) uint8; not negative."""
    device = next(network.parameters()).device
    return in_blocks(lambda x: network.features(x.to(device)).cpu(), rows_of(network), to_range(images)).numpy()
