"""Options that several verbs share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from conceptbench.core.schemas import Split
    from conceptbench.core.schemas import Suite as SuiteSchema
    from conceptbench.engine.lineup import Entry
    from conceptbench.engine.plan import Plan
    from conceptbench.models.base import Base

Suite = Annotated[str, typer.Argument(help="A suite's name or a YAML file.")]
Erasers = Annotated[
    list[str] | None,
    typer.Option("--eraser", "-e", help="NAME[-VARIANT][:PRESET][,OPTION=VALUE...] or FILE.py[:Class]; repeat for more. Default: the suite's line-up."),
]
BaseName = Annotated[str | None, typer.Option("--base", help="Another base: a name, a diffusers folder or a hub id.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Only so many prompts a concept (images, where there is one prompt and each image is a draw of its own); the run is marked limited.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the erasers.")]
StorePath = Annotated[
    Path | None, typer.Option("--store", help="Where erasures and images are kept. Default: $CONCEPTBENCH_STORE, else ~/.cache/conceptbench.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with erasers of yours to register; repeat for more.")]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", help="[NAME=]PATH of weights made elsewhere: a diffusers folder, a UNet state dict, a .ckpt, a LoRA; repeat for more."),
]
Combinations = Annotated[
    list[str] | None, typer.Option("--combine", help="A sum such as a+b-c of the names of --checkpoint, as one more row; repeat for more.")
]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only this task of the suite; repeat for more.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images a forward pass; on a CPU it changes no byte.")]
Precision = Annotated[str, typer.Option("--precision", help="Of sampling: fp32, bf16 or fp16 (autocast). Images of another precision are other images.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the denoiser for sampling: slow to start, faster on CUDA.")]
Dev = Annotated[bool, typer.Option("--development", help="Use the development prompts and seeds, for tuning a method.")]


def store_root(given: Path | None) -> Path:
    """The store's folder: the option, the environment variable, or the cache folder."""
    if given is not None:
        return given
    named = os.environ.get("CONCEPTBENCH_STORE")
    return Path(named) if named else Path.home() / ".cache" / "conceptbench"


def check_device(name: str) -> None:
    """Refuses a device that torch does not have here."""
    import torch

    from conceptbench.core.errors import UserInputError

    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        raise UserInputError(f"no device {name!r} here: {str(error).splitlines()[0]}", "devices: cpu, or cuda where torch sees one") from error


def planned(asked: Mapping[str, Any]) -> tuple[Base, Plan]:
    """What the verbs that need a plan begin with: names checked before anything is loaded, then the base and the plan.

    Args:
        asked: a verb's options by name, as in ``typer.Context.params``; one that the verb does not have is at its default. ``line_up``
            is a line-up that counts even if it is empty, as one of the command line does not.
    """
    suite, specs, brought, base_name = checked_names(asked)
    from conceptbench.engine.erasing import check_requests
    from conceptbench.engine.lineup import resolve
    from conceptbench.engine.needs import check_data
    from conceptbench.engine.plan import make_plan
    from conceptbench.models.families import load_base

    check_device(asked["device"])
    check_data(suite)
    base = load_base(base_name, device=asked["device"], precision=asked.get("precision", "fp32"), compiled=asked.get("compiled", False))
    entries = {e.spec: e for e in (*(resolve(spec, family=base.info.family, tier=base.info.tier) for spec in specs), *brought)}
    split: Split | None = "development" if asked.get("development") else None
    plan = make_plan(suite, base.info, list(entries.values()), limit=asked.get("limit"), train_seed=asked["seed"], split=split)
    check_requests(base, plan)
    return base, plan


def checked_names(asked: Mapping[str, Any]) -> tuple[SuiteSchema, list[str], list[Entry], str]:
    """The suite with its chosen tasks, the erasers' specs, entries of weights that were brought, and the base's name; nothing is loaded."""
    from conceptbench.core.manifests import load_suite
    from conceptbench.core.registry import ERASERS

    suite = chosen_tasks(load_suite(asked["suite"]), asked.get("task"))
    for path in asked.get("plugin") or ():
        ERASERS.add_file(path)
    from conceptbench.engine.brought import checkpoint_entries
    from conceptbench.engine.lineup import resolve

    brought = checkpoint_entries(asked.get("checkpoint") or (), asked.get("combine") or ())
    # who brings weights wants to see these, and the usual line-up only when asked for
    line_up = asked.get("line_up")
    specs = list(dict.fromkeys(line_up if line_up is not None else asked.get("eraser") or (() if brought else suite.erasers)))
    base_name = asked.get("base") or suite.base
    for spec in specs:
        resolve(spec, family=None, tier="mini" if base_name == "mini" else "paper")
    return suite, specs, list(brought), base_name


def chosen_tasks(suite: SuiteSchema, names: list[str] | None) -> SuiteSchema:
    """The suite with only the named tasks and what there is to measure in them; says which metrics it leaves out."""
    from conceptbench.core.choosing import cut_to

    cut, notes = cut_to(suite, names) if names else (suite, [])
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return cut
