"""A run in a process of its own, for tests that kill it. Imported by a fork server before it forks: everything slow is here."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import replace
from pathlib import Path

import torch
import world  # noqa: F401 - registers the judges
from diffusers import StableDiffusionPipeline  # noqa: F401 - imported once, before forking

from conceptbench.cli.run import carry_out
from conceptbench.core.manifests import load_suite
from conceptbench.engine import erasing, provenance, report, run, timing  # noqa: F401
from conceptbench.engine.lineup import resolve
from conceptbench.engine.plan import make_plan
from conceptbench.engine.session import Shard
from conceptbench.models.families import load_base

BATCH = 3
STEPS = 8


def job(suite: Path, base: Path, store: Path, output: Path, shard: str = "1/1") -> None:
    """Carries out the suite with ESD of a few steps, saved after each; stdout and stderr go to a file."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    log = os.open(output / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    loaded = load_base(str(base))
    esd = resolve("esd-x:mini", family="sd1", tier="paper")
    esd = replace(esd, config=esd.config.model_copy(update={"steps": STEPS, "bank": 4, "batch": 2, "denoising_steps": 3, "lr": 1e-2}))
    plan = make_plan(load_suite(str(suite)), loaded.info, [esd])
    with contextlib.suppress(BrokenPipeError):
        carry_out(loaded, plan, output, store, batch=BATCH, shard=Shard.parse(shard), save_every=0.0)
