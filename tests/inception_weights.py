"""A file of weights for FID's Inception: the real architecture and file name with random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3


def write_file(folder: Path) -> Path:
    """Writes them into a folder that exists; they keep signals from dying out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path="x")
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.bias.data.normal_(0, 0.1)
    path = folder / URL_INCEPTION_V3.rsplit("/", 1)[1]
    torch.save(network.state_dict(), path)
    return path
