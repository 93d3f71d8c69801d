"""The mini base: a stock StableDiffusionPipeline with the shipped weights."""

from __future__ import annotations

from conceptbench.mini.judges import weights_file
from conceptbench.mini.world import WORLD_VERSION
from conceptbench.models.base import Base
from conceptbench.models.families import base_from_pipeline, load_pipeline


def load() -> Base:
    """Loads the mini base in float32 (it ships in half precision)."""
    folder = weights_file("base/model_index.json").parent
    return base_from_pipeline(load_pipeline(str(folder)), "mini", revision=WORLD_VERSION, tier="mini")
