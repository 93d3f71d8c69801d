"""The paper tier without its weights: the real classes at random, small numbers of everything that makes a run long, data files that are made up.

The networks keep their kind and their interface; where an architecture is a matter of its size, it is a shallow one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import giphy_weights
import inception_weights
import numpy as np
import open_clip
import pytest
import tiny
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet

from conceptbench.core import manifests
from conceptbench.core.strict import Strict
from conceptbench.engine import lineup
from conceptbench.judges import clip, giphy, imagenet, inception, resnet18
from conceptbench.models.base import Base

SHORT = {
    **{"warmup": 0, "steps": 1, "batch": 1, "bank": 2, "images": 2, "denoising_steps": 2, "texts": 1},
    **{"surrogate_images": 1, "replay_images": 20, "fisher_images": 1, "fisher_timesteps": 1, "latents": "base"},
}
"""Options of erasers, of those that have them."""
METRICS = {
    "m_score": {"steps": 1, "batch": 1, "seeds": 2, "images": 1, "evaluation": 2, "shown": 0},
    "attention_map": {"prompts": 1, "steps": 2, "shown": 0},
    "fid": {"n": 9},
    "precision": {"n": 9},
    "recall": {"n": 9},
}
"""Options of metrics."""
CLIP = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 16, "head_width": 8, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
PERSONS = ("Brad_Pitt", "Angelina_Jolie", "Jennifer_Aniston", "Oprah_Winfrey", "Jackie_Chan")
"""Whom GIPHY's detector must know."""
PROMPTS = {"i2p": (4703, "prompt,sd_seed,sd_guidance_scale", "{},7.5"), "coco-30k": (30000, "prompt,evaluation_seed", "{}")}
"""Prompt sets that do not ship: rows, header, and what stands behind a prompt, with its seed."""


def _resnet(block: type, **options) -> resnet.ResNet:
    return resnet.ResNet(block, [1, 1, 1, 1], **options)


def bottleneck(**options) -> resnet.ResNet:
    """In ResNet-50's place."""
    return _resnet(resnet.Bottleneck, width_per_group=8, **options)


def basic(**options) -> resnet.ResNet:
    """In ResNet-18's place."""
    return _resnet(resnet.BasicBlock, **options)


def write(root: Path) -> Path:
    """A torch cache, a CLIP, GIPHY's folder, prompt files and photos of those names, and a tiny base.

    Args:
        root: an empty folder.
    """
    cache = root / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.manual_seed(0)
    networks = {("resnet50", "IMAGENET1K_V1"): bottleneck, ("resnet50", "IMAGENET1K_V2"): bottleneck, ("resnet18", "IMAGENET1K_V1"): basic}
    for (name, weights), make in {**networks, ("alexnet", "IMAGENET1K_V1"): torchvision.models.alexnet}.items():
        torch.save(make().state_dict(), cache / torchvision.models.get_model_weights(name)[weights].url.rsplit("/", 1)[1])
    inception_weights.write_file(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", CLIP)
        save_file({k: v.contiguous() for k, v in open_clip.create_model("ViT-B-32").state_dict().items()}, root / "clip.safetensors")
    # a token is a letter, so that prompts are long; what SepME's targets span must leave dimensions for its changes
    tiny.save("sd1", root / "base", width=256, length=77)
    labels = giphy_weights.write_folder(root / "giphy") / giphy.LABELS
    text = labels.read_text()
    for i, name in enumerate(PERSONS, 7):
        assert f"Person_{i:04}_" in text
        text = text.replace(f"Person_{i:04}_", f"{name}_")
    labels.write_text(text)
    _write_data(root / "data")
    return root


def _write_data(folder: Path) -> None:
    (folder / "prompts").mkdir(parents=True)
    for name, (rows, header, rest) in PROMPTS.items():
        lines = (f"scene {i} of {name},{rest.format(i)}" for i in range(rows))
        (folder / "prompts" / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    photos = folder / "coco-val2014"
    photos.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (METRICS["fid"]["n"], 40, 40, 3), np.uint8)):
        Image.fromarray(pixels).save(photos / f"{i}.png")


def put_in_place(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Everything where the harness looks for it, and runs cut short: steps, images, trainings.

    Args:
        root: what :func:`write` wrote.
        patch: undone by the caller.
    """
    patch.setattr(torch.hub, "get_dir", lambda: str(root / "hub"))
    patch.setenv(giphy.VARIABLE, str(root / "giphy"))
    patch.setenv("CONCEPTBENCH_DATA", str(root / "data"))
    for name in ("ViT-B-32", "ViT-B-32-quickgelu"):
        patch.setitem(open_clip.factory._MODEL_CONFIGS, name, CLIP)
    patch.setattr(clip, "weights_file", lambda *_: (root / "clip.safetensors", {}))
    patch.setattr(Base, "exact_rows", 16)  # forwards are filled up to so many
    for judge, name, rows in ((imagenet, "BATCH", 4), (clip, "BATCH", 4), (resnet18, "ROWS", 4), (inception, "ROWS", 1)):
        patch.setattr(judge, name, rows)
    get_model = torchvision.models.get_model
    patch.setattr(torchvision.models, "resnet18", basic)
    patch.setattr(torchvision.models, "get_model", lambda name: bottleneck() if name == "resnet50" else get_model(name))
    load, resolve = manifests.load_suite, lineup.resolve

    def suite(name):
        return shortened(load(name))

    def brief(spec, **asked):
        entry = resolve(spec, **asked)
        return replace(entry, config=_cut(entry.config), by_kind={k: _cut(c) for k, c in entry.by_kind.items()})

    patch.setattr(manifests, "load_suite", suite)
    patch.setattr(lineup, "resolve", brief)


def _cut(config):
    """An eraser's options with few steps and images; those of another eraser inside them, too."""
    inner = {name: _cut(value) for name, value in config if isinstance(value, Strict)}
    return config.model_copy(update={**inner, **{k: v for k, v in SHORT.items() if k in type(config).model_fields}})


def shortened(suite):
    """The suite with few steps and images, and nothing left out."""
    # LPIPS needs 31 px; models of classes have a size, and some take one step
    sampler = suite.sampler.model_copy(update={"steps": min(2, suite.sampler.steps), "size": suite.sampler.size and 32})
    changes = {"sampler": sampler, "floor": None, "images_per_prompt": min(suite.images_per_prompt, 1)}
    if suite.watch is not None:
        changes["watch"] = suite.watch.model_copy(update={"images": 1, "every": 1000})
    changes["judges"] = {n: j.model_copy(update={"images": 4, "epochs": 1}) for n, j in suite.judges.items()}
    changes["metrics"] = tuple(m.model_copy(update={"options": {**m.options, **METRICS.get(m.metric, {})}}) for m in suite.metrics)
    return suite.model_copy(update=changes)
