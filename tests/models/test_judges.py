from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from conceptbench.core.errors import MissingWeightsError
from conceptbench.models.judges import OpenCLIP, resnet50_v1, resnet50_v2


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A torch cache with random weights of the real architecture under the real file names."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    torch.manual_seed(0)
    state = torchvision.models.resnet50().state_dict()
    for weights in torchvision.models.ResNet50_Weights:
        torch.save(state, folder / weights.url.rsplit("/", 1)[1])
    return folder.parent


def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)


@pytest.mark.parametrize("make", [resnet50_v1, resnet50_v2])
def test_resnet_sees_what_torchvision_prepares(cache, monkeypatch, make):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    judge = make()
    images = pictures()
    out = judge(images, ["", ""])["imagenet"]
    prepared = torch.stack([judge.transform(Image.fromarray(i)) for i in images])  # from PIL, as the weights' card says
    with torch.no_grad():
        expected = judge.network(prepared).softmax(-1).numpy()
    assert prepared.shape[-1] == 224 and out.shape == (2, 1000)
    assert np.abs(out - expected).max() < 0.05  # PIL and tensor resizing differ in the last bit of uint8
    assert judge.card.labels["imagenet"][497] == "497:church" and len(set(judge.card.labels["imagenet"])) == 1000
    assert ("resize 256" in judge.card.preprocessing) == (make is resnet50_v1)


def test_weights_that_are_not_here(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"resnet50-11ad3fa6\.pth") as caught:
        resnet50_v2()
    assert "with a network: python -c" in caught.value.hint
    with pytest.raises(MissingWeightsError, match="needs open_clip"):
        OpenCLIP("x", "ViT-B-32-quickgelu", str(tmp_path / "nowhere.pt"))
