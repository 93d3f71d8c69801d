"""Prompt sets that never ship, in a data folder of the test's own, with manifests of its own or with as many rows as the shipped ones say."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from PIL import Image

from conceptbench.core import manifests
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import load_concepts, load_prompts
from conceptbench.core.registry import JUDGES, REFERENCES
from conceptbench.engine.reference_folders import coco_30k

HUB, COPY = ("prompt", "sd_seed", "sd_guidance_scale"), ("prompt", "evaluation_seed", "evaluation_guidance")
MANIFEST = {
    "title": "three prompts",
    "dataset": "owner/few",
    "file": "few_prompts.csv",
    "rows": 3,
    "concept": "ab",
    "layouts": [dict(zip(("text", "seed", "guidance"), names, strict=True)) for names in (HUB, COPY)],
    "licence": "none",
}
ROWS = [("ab, of 2", 41, 7), ("ab 'b'", 4261553411, 12.5), ("ab c\n", 8, "")]

if "coco-30k" not in REFERENCES.names():  # an installation from before it was there
    REFERENCES.add("coco-30k", coco_30k)


def write_rows(path, rows, header=HUB):
    """A file as others publish it, with a column that means nothing here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("", *header))
        writer.writerows((i, *row) for i, row in enumerate(rows))
    load_prompts.cache_clear()
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("CONCEPTBENCH_DATA", str(tmp_path / "the data"))
    load_prompts.cache_clear()
    load_concepts.cache_clear()
    yield tmp_path / "the data"
    load_prompts.cache_clear()


@pytest.fixture
def few(data, tmp_path, monkeypatch):
    """The place of the set ``few``, which has a manifest and no file yet."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "few.yaml").write_text(yaml.safe_dump(MANIFEST))
    shipped = manifests._folder
    monkeypatch.setattr(manifests, "_folder", lambda kind: tmp_path / kind if kind == "sources" else shipped(kind))
    return data / "prompts" / "few.csv"


# -- images ----------------------------------------------------------------------------------------------------------
SIZES = [(8, 12), (8, 12), (10, 6), (8, 12)]


class Means:
    """Features: an image's mean colour. Remembers the batches that it got."""

    def __init__(self):
        self.card = JudgeCard("foreign-means", "features", "f" * 64, "here", "none", "none", {})
        self.shapes = []

    def __call__(self, images):
        self.shapes.append(images.shape)
        return {"features": images.reshape(len(images), -1, 3).mean(1)}


def fill(folder, sizes=SIZES):
    """Images of several sizes, and their mean colours."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, means = np.random.default_rng(0), []
    for i, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"COCO_val2014_{i:012}.png")
        means.append(pixels.reshape(-1, 3).mean(0))
    return np.stack(means)


JUDGES.add("foreign-means", Means)
