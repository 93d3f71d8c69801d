from __future__ import annotations

import json
import socket

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image
from safetensors.torch import save_file

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.judges import clip as clip_judges
from conceptbench.judges.clip import OpenCLIP, clip_b32, clip_b32_kpop, clip_l14, eva02_l14_336, weights_file

TINY = "tiny-for-tests"
TAGS = {
    "plain": {"hf_hub": "somebody/tiny/"},
    "other": {"hf_hub": "somebody/tiny-other/", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "resize_mode": "squash"},
    "pickle": {"hf_hub": "somebody/tiny-pickle/"},
    "named": {"hf_hub": "somebody/tiny-named/best.safetensors"},
    "absent": {"hf_hub": "somebody/absent/"},
}
SETTINGS = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}  # OpenAI's, clip/clip.py


def into_cache(cache, repository, name, write):
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    write(folder / "snapshots" / "abc" / name)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The weights of a tiny architecture that open_clip knows by name, with OpenAI's tokenizer."""
    folder = tmp_path_factory.mktemp("configs")
    config = {
        "embed_dim": 8,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    (folder / f"{TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    yield {k: v.contiguous() for k, v in open_clip.create_model(TINY).state_dict().items()}
    open_clip.factory._MODEL_CONFIGS.pop(TINY)


@pytest.fixture
def cache(state, tmp_path, monkeypatch):
    """A hub cache with tags of the tiny architecture; the network is away."""

    def refuse(*_, **__):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY, TAGS)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, file in (("tiny", "open_clip_model.safetensors"), ("tiny-other", "open_clip_model.safetensors"), ("tiny-named", "best.safetensors")):
        into_cache(tmp_path / "hub", f"somebody/{name}", file, lambda path: save_file(state, path))
    into_cache(tmp_path / "hub", "somebody/tiny-pickle", "open_clip_pytorch_model.bin", lambda path: torch.save(state, path))
    return tmp_path


def pictures(n=3, height=40, width=24):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def test_weights_from_the_hubs_cache_and_from_a_file(cache, state):
    save_file(state, cache / "mine.safetensors")
    judges = [OpenCLIP("x", TINY, p) for p in ("plain", "pickle", "named", str(cache / "mine.safetensors"))]
    torch.manual_seed(1)
    model = open_clip.create_model(TINY)
    model.load_state_dict(state)
    with torch.no_grad():
        image = model.eval().encode_image(judges[0].prepared(pictures()))
        text = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a cat", ""]))
    for judge in judges:
        for ours, theirs in ((judge(pictures())["embedding"], image), (judge.encode_texts(["a cat", ""]), text)):
            assert ours.dtype == np.float32 and np.abs(ours - (theirs / theirs.norm(dim=1, keepdim=True)).numpy()).max() < 1e-6
    assert len({j.card.sha256 for j in judges}) == 1 and judges[0].card.role == "image-text" and judges[0].card.labels == {}
    state = {**state, "logit_scale": state["logit_scale"] + 1}
    save_file(state, cache / "other.safetensors")
    assert OpenCLIP("x", TINY, str(cache / "other.safetensors")).card.sha256 != judges[0].card.sha256


def test_the_preprocessing_is_that_of_the_tag(cache):
    plain, other = OpenCLIP("x", TINY, "plain"), OpenCLIP("x", TINY, "other")
    image = Image.fromarray(pictures()[0])
    recipe = T.Compose([T.Resize(16, T.InterpolationMode.BICUBIC), T.CenterCrop(16), T.ToTensor(), T.Normalize(**SETTINGS)])
    assert torch.allclose(plain.prepared(pictures())[0], recipe(image), atol=1e-6)
    recipe = T.Compose([T.Resize((16, 16), T.InterpolationMode.BICUBIC), T.ToTensor(), T.Normalize((0.5,) * 3, (0.25,) * 3)])
    assert torch.allclose(other.prepared(pictures())[0], recipe(image), atol=1e-6)
    assert "shortest, mean (0.48145466" in plain.card.preprocessing and "squash, mean (0.5" in other.card.preprocessing


def test_weights_that_are_not_here(cache):
    with pytest.raises(MissingWeightsError, match="needs open_clip tiny-for-tests / absent, and it is not in the cache") as caught:
        OpenCLIP("x", TINY, "absent")
    assert "with a network: python -c" in caught.value.hint and "pretrained='absent'" in caught.value.hint
    for name in ("plian", str(cache / "nowhere.pt")):
        with pytest.raises(MissingWeightsError, match="neither a file nor a tag of tiny-for-tests") as caught:
            OpenCLIP("x", TINY, name)
        assert "absent, named, other, pickle, plain" in ", ".join(sorted(caught.value.hint.removeprefix("tags: ").split(", ")))
    with pytest.raises(UserInputError, match="no architecture 'ViT-B-23'; did you mean 'ViT-B-32'"):
        OpenCLIP("x", "ViT-B-23", "openai")


@pytest.mark.parametrize("name", ["half.safetensors", "half.pt"])
def test_a_damaged_file(cache, name):
    (cache / name).write_bytes(b"\x80half a file")
    with pytest.raises(MissingWeightsError, match=r"judge 'x' cannot make open_clip tiny-for-tests of .*half"):
        OpenCLIP("x", TINY, str(cache / name))


def test_a_file_of_another_architecture(cache, state):
    save_file({k: v for k, v in state.items() if "resblocks" not in k}, cache / "short.safetensors")
    with pytest.raises(MissingWeightsError, match="cannot make open_clip"):
        OpenCLIP("x", TINY, str(cache / "short.safetensors"))


def test_an_old_cache_of_openais_package_counts(cache, state, monkeypatch):
    monkeypatch.setitem(TAGS, "old", {"url": "https://somewhere/123/tiny.pt", "hf_hub": "somebody/absent/"})
    (cache / ".cache" / "clip").mkdir(parents=True)
    torch.save(state, cache / ".cache" / "clip" / "tiny.pt")
    assert weights_file("x", TINY, "old")[0] == cache / ".cache" / "clip" / "tiny.pt"
    assert len(OpenCLIP("x", TINY, "old").card.sha256) == 64


# -- the real architectures ------------------------------------------------------------------------------------------
REAL = {clip_b32: (224, 512), clip_b32_kpop: (224, 512), clip_l14: (224, 768), eva02_l14_336: (336, 768)}


@pytest.mark.parametrize("make", REAL)
def test_registered_judges_are_models_of_open_clip(make, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(OpenCLIP, "__init__", lambda self, *names, **_: asked.append(names))
    make()
    _, architecture, tag = asked[0]
    config = open_clip.get_model_config(architecture)
    assert (config["vision_cfg"]["image_size"], config["embed_dim"]) == REAL[make] and config["text_cfg"]["context_length"] == 77
    settings = open_clip.get_pretrained_cfg(architecture, tag)
    assert settings["hf_hub"] and settings.get("quick_gelu", False) == config.get("quick_gelu", False)  # else the activations are wrong
    with pytest.raises(MissingWeightsError, match="not in the cache"):
        weights_file("x", architecture, tag)


@pytest.fixture(scope="module")
def large():
    """Both B/32 judges on the same random weights of the real architecture."""
    with pytest.MonkeyPatch.context() as patch:
        with torch.device("meta"):  # its own random values take seconds
            model = open_clip.create_model("ViT-B-32-quickgelu", device="meta").to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for tensor in model.visual.parameters():
            tensor.data.normal_(0, 0.05, generator=generator)
        patch.setattr(open_clip, "create_model", lambda *_, **__: model)
        patch.setattr(clip_judges, "weights_file", lambda *_: ("somewhere", {}))
        patch.setattr(clip_judges, "hash_tensors", lambda _: "0" * 64)
        return clip_b32(), clip_b32_kpop()


def test_b32_at_its_real_size(large, monkeypatch):
    plain, kpop = large
    monkeypatch.setattr(clip_judges, "BATCH", 2)  # no more rows than images
    images = pictures(2, 300, 260)
    recipe = T.Compose([T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(), T.Normalize(**SETTINGS)])
    assert torch.allclose(plain.prepared(images), torch.stack([recipe(Image.fromarray(i)) for i in images]), atol=1e-6)
    out = plain(images)["embedding"]
    assert out.shape == (2, 512) and np.abs(np.linalg.norm(out, axis=1) - 1).max() < 1e-5
    assert plain.card.preprocessing != kpop.card.preprocessing and plain.card.id != kpop.card.id


def test_kpop_reduces_bytes_bilinearly_first(large):
    plain, kpop = large
    images = pictures(2, 300, 260)
    bytes_ = F.resize(torch.from_numpy(images).permute(0, 3, 1, 2), 224, antialias=True)  # as its script does; then bicubic has nothing to do
    assert bytes_.dtype == torch.uint8 and bytes_.shape[-2:] == (258, 224)
    cropped = F.center_crop(bytes_, [224, 224]).float() / 255
    expected = F.normalize(cropped, SETTINGS["mean"], SETTINGS["std"])
    assert torch.allclose(kpop.prepared(images), expected, atol=1e-6)
    assert (kpop.prepared(images) - plain.prepared(images)).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-L-14-quickgelu", "EVA02-L-14-336"])
def test_prompts_of_more_than_77_tokens_are_cut_and_keep_their_end(architecture):
    tokenizer = open_clip.get_tokenizer(architecture)
    ids = tokenizer(["cat " * 75, "cat " * 76, "cat " * 75 + "dog", ""])
    start, end = 49406, 49407
    assert ids.shape == (4, 77) and (ids[:, 0] == start).all() and (ids[:3, -1] == end).all() and ids[3, 1] == end
    assert torch.equal(ids[0], ids[1]) and torch.equal(ids[0], ids[2])  # 75 words fit, what follows does not
    assert not torch.equal(ids[0], tokenizer(["dog " + "cat " * 75])[0])


def test_long_prompts_embed_as_their_beginning(cache):
    judge = OpenCLIP("x", TINY, "plain")
    whole, cut, other = judge.encode_texts(["cat " * 75, "cat " * 80 + "dog", "dog " + "cat " * 80])
    assert np.array_equal(whole, cut) and np.abs(whole - other).max() > 1e-3
