"""The paper tier end to end: the papers' suites on a tiny Stable Diffusion and with the real judges, both at random weights.

As many cells are measured as the paper prints. Only what makes it long is cut: steps of the sampler and of trainings, images.
"""

from __future__ import annotations

import json
from dataclasses import replace

import giphy_weights
import open_clip
import pytest
import tiny
import torch
import torchvision
from calling import call
from safetensors.torch import save_file

from conceptbench.core import manifests
from conceptbench.engine import lineup
from conceptbench.judges import clip, giphy
from conceptbench.leaderboard.published import load_published

SHORT = {
    **{"warmup": 0, "steps": 1, "batch": 1, "bank": 2, "images": 2, "denoising_steps": 2, "texts": 1},
    **{"surrogate_images": 1, "replay_images": 20, "fisher_images": 1, "fisher_timesteps": 1, "latents": "base"},
}
CLIP = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 16, "head_width": 8, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A torch cache, a CLIP and GIPHY's folder with random weights under their real names, and a tiny base."""
    root = tmp_path_factory.mktemp("weights")
    (root / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    url = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url
    torch.save(torchvision.models.alexnet().state_dict(), root / "hub" / "checkpoints" / url.rsplit("/", 1)[1])
    names = giphy_weights.write_folder(root / "giphy") / giphy.LABELS
    text = names.read_text().replace("Person_0007_", "Brad_Pitt_").replace("Person_0008_", "Angelina_Jolie_")
    names.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        short = tiny.tokenizer
        patch.setattr(tiny, "tokenizer", lambda pad="<|endoftext|>": short(pad, 77))  # a token a letter: prompts are long
        tiny.save("sd1", root / "base")
    return root


@pytest.fixture
def short(weights, monkeypatch):
    """Everything in place, and short."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(weights / "hub"))
    monkeypatch.setenv(giphy.VARIABLE, str(weights / "giphy"))
    for name in ("ViT-B-32", "ViT-B-32-quickgelu"):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, CLIP)
    if not (weights / "clip.safetensors").exists():
        torch.manual_seed(0)
        save_file({k: v.contiguous() for k, v in open_clip.create_model("ViT-B-32").state_dict().items()}, weights / "clip.safetensors")
    monkeypatch.setattr(clip, "weights_file", lambda *_: (weights / "clip.safetensors", {}))
    load, resolve = manifests.load_suite, lineup.resolve

    def suite(name):
        found = load(name)
        sampler = found.sampler.model_copy(update={"steps": 2, "size": 32})
        return found.model_copy(update={"sampler": sampler, "floor": None, "images_per_prompt": min(found.images_per_prompt, 1), "watch": None})

    def brief(spec, **asked):
        entry = resolve(spec, **asked)

        def cut(config):
            return config.model_copy(update={k: v for k, v in SHORT.items() if k in type(config).model_fields})

        return replace(entry, config=cut(entry.config), by_kind={k: cut(c) for k, c in entry.by_kind.items()})

    monkeypatch.setattr(manifests, "load_suite", suite)
    monkeypatch.setattr(lineup, "resolve", brief)
    return weights


@pytest.mark.parametrize("name", ["kpop/7", "selective-amnesia/2"])  # others take minutes: see test_table_coverage.py
def test_as_many_cells_are_measured_as_are_printed(short, name, tmp_path, monkeypatch, capsys):
    arguments = ("table", "run", name, "--tier", "paper", "--base", short / "base", "--limit", 1, "--store", tmp_path / "s", "--output", tmp_path / "o")
    code, out, err = call(*arguments, "--format", "csv", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, err
    lines = (tmp_path / "o" / "table.csv").read_text().splitlines()
    head = lines[0].split(",")
    assert out.splitlines() == lines and len(lines) - 1 == len(load_published(name).cells)
    measured = [line for line in lines[1:] if line.split(",")[head.index("metric")]]
    assert len(measured) == len(lines) - 1
    for run in (tmp_path / "o").iterdir():
        if run.is_dir():
            assert json.loads((run / "results.json").read_text())["canonical"]["limited"] == 1
