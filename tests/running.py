"""Carries out the tiny suite on a tiny pipeline, as `conceptbench run` does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conceptbench.core.manifests import load_concepts, load_prompts, load_suite
from conceptbench.engine.lineup import resolve
from conceptbench.engine.plan import make_plan
from conceptbench.engine.run import Runner
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.models.families import load_base

ESD = "quick esd"


def entry(name):
    """A line-up entry; training is cut to a few steps."""
    if not isinstance(name, str):
        return name
    if name != ESD:
        return resolve(name, family="sd1", tier="paper")
    made = resolve("esd-x:mini", family="sd1", tier="paper")
    return replace(made, config=made.config.model_copy(update={"steps": 3, "bank": 4, "batch": 2, "denoising_steps": 3, "lr": 1e-2}))


def runner_of(suite_path, folder, store, erasers=("negative-prompt", "uce"), *, batch=32, session=None, collect=False, **kwargs):
    load_concepts.cache_clear()
    load_prompts.cache_clear()
    base = load_base(str(folder))
    plan = make_plan(load_suite(str(suite_path)), base.info, [entry(e) for e in erasers], **kwargs)
    session = replace(session or Session(), batch=batch)
    return Runner(base, plan, Store(Path(store)), session=session, collect=collect)


def carry_out(suite_path, folders, store, erasers=("negative-prompt", "uce"), **kwargs):
    runner = runner_of(suite_path, folders["sd1"], store, erasers, **kwargs)
    return runner.run(), runner


def image_bytes(store):
    return {p.name: p.read_bytes() for p in sorted((Path(store) / "images").rglob("*.png"))}
