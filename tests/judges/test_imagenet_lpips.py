from __future__ import annotations

import warnings

import lpips
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.judges.imagenet import resnet50_v1, resnet50_v2
from conceptbench.judges.lpips import LPIPS, lpips_alex, lpips_alex_64, lpips_vgg, lpips_vgg_64


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
    out = judge(images)["imagenet"]
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


NETS = {"alex": (lpips_alex, lpips_alex_64), "vgg": (lpips_vgg, lpips_vgg_64)}


@pytest.fixture(scope="module", params=NETS)
def theirs(request, tmp_path_factory):
    """The package's network with its learned heads on a random trunk, and a torch cache that holds the same trunk."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package asks torchvision in an old way
        network = lpips.LPIPS(net=request.param, pnet_rand=True, verbose=False)
    state = {f"features.{k.split('.', 1)[1]}": v for k, v in network.net.state_dict().items()}
    state["classifier.1.weight"] = torch.zeros(3)  # the real file has the whole classifier
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    architecture = {"alex": torchvision.models.AlexNet_Weights, "vgg": torchvision.models.VGG16_Weights}[request.param]
    torch.save(state, folder / architecture.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    return request.param, network, folder.parent


def pairs(n, height, width, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, height, width, 3), np.uint8)
    return images, np.clip(images + rng.normal(0, 60, images.shape), 0, 255).astype(np.uint8)


def as_the_package_does(network, images, partners):
    tensors = [torch.cat([lpips.im2tensor(i) for i in batch]) for batch in (images, partners)]
    with torch.no_grad():
        return network(*tensors).flatten().numpy()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 53)])
def test_lpips_equals_the_package(theirs, monkeypatch, height, width):
    net, network, cache = theirs
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    images, partners = pairs(5, height, width)
    out = NETS[net][0]()(images, partners)["distance"]
    expected = as_the_package_does(network, images, partners)
    assert out.shape == (5,) and expected.min() > 1e-3  # far from 0, so that the tolerance means something
    assert np.abs(out - expected).max() < 1e-4 * expected.max()


def test_lpips_at_64_is_esds_script(theirs, monkeypatch):
    """Resize of a PIL image, ToTensor, (x - 0.5) * 2; not the native distance, and not of a square."""
    net, network, cache = theirs
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    native, reduced = NETS[net][0](), NETS[net][1]()
    images, partners = pairs(3, 96, 128)
    loader = torchvision.transforms.Compose([torchvision.transforms.Resize(64), torchvision.transforms.ToTensor()])
    tensors = [torch.stack([(loader(Image.fromarray(i)) - 0.5) * 2 for i in batch]) for batch in (images, partners)]
    with torch.no_grad():
        expected = network(*tensors).flatten().numpy()
    out = reduced(images, partners)["distance"]
    assert tensors[0].shape[-2:] == (64, 85) and np.abs(out - expected).max() < 1e-4 * expected.max()
    assert np.abs(native(images, partners)["distance"] - out).min() > 1e-2 * out.max()
    assert native.card.id != reduced.card.id and native.card.preprocessing != reduced.card.preprocessing


def test_lpips_of_equal_images_symmetry_and_batches(theirs, monkeypatch):
    net, _, cache = theirs
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    for make in NETS[net]:
        judge = make()
        images, partners = pairs(5, 48, 40)
        whole = judge(images, partners)["distance"]
        assert judge(images, images)["distance"].tolist() == [0.0] * 5
        assert np.array_equal(whole, judge(partners, images)["distance"])
        parts = [judge(images[i : i + 1], partners[i : i + 1])["distance"][0] for i in (0, 3, 4)]
        assert np.array_equal(whole[[0, 3, 4]], parts)


def test_lpips_says_what_it_cannot_take(theirs, monkeypatch):
    net, _, cache = theirs
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    judge, least = NETS[net][0](), {"alex": 31, "vgg": 16}[net]
    at_least, too_small = pairs(1, least, 40), pairs(1, 40, least - 1)
    assert judge(*at_least)["distance"].shape == (1,)
    with pytest.raises(UserInputError, match=rf"at least {least} px a side, and these have {least - 1} x 40"):
        judge(*too_small)
    assert NETS[net][1]()(*too_small)["distance"].shape == (1,)  # enlarged to 64 first
    with pytest.raises(UserInputError, match="as many partners"):
        judge(at_least[0], too_small[1])
    with pytest.raises(UserInputError, match=r"lie in \[0, 255\]"):
        judge.distance(torch.full((1, 3, 64, 64), 255.0).index_fill(1, torch.tensor([0]), 0.0), torch.zeros(1, 3, 64, 64))


def test_lpips_card_knows_trunk_and_heads(theirs, monkeypatch, tmp_path):
    net, _, cache = theirs
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    first = NETS[net][0]().card
    assert (first.role, first.id, len(first.sha256)) == ("distance", f"lpips-{net}", 64)
    file = next((cache / "checkpoints").iterdir())
    state = torch.load(file, weights_only=True)
    state["features.0.bias"][0] += 1
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / file.name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    changed = NETS[net][0]().card
    assert changed.sha256 != first.sha256
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    assert NETS[net][0]().card.sha256 == first.sha256
    monkeypatch.setattr("conceptbench.judges.lpips._heads", lambda judge, net: (file, []))
    assert NETS[net][0]().card.sha256 != first.sha256


@pytest.mark.parametrize(("make", "file"), [(lpips_alex_64, "alexnet-owt-7be5be79.pth"), (lpips_vgg, "vgg16-397923af.pth")])
def test_lpips_without_its_trunk(tmp_path, monkeypatch, make, file):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeightsError, match=file.replace(".", r"\.")) as caught:
        make()
    assert "with a network: python -c" in caught.value.hint
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / file).write_bytes(b"half a file")
    with pytest.raises(MissingWeightsError, match="cannot read") as caught:
        make()
    assert "delete it" in caught.value.hint


def test_lpips_on_another_trunk():
    with pytest.raises(UserInputError, match="did you mean 'alex'"):
        LPIPS("x", "alexx")
