"""Options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from conceptbench.engine.plan import Plan
    from conceptbench.models.base import Base

Suite = Annotated[str, typer.Argument(help="A suite's name or a YAML file.")]
Erasers = Annotated[
    list[str] | None, typer.Option("--eraser", "-e", help="NAME[-VARIANT][:PRESET] or FILE.py[:Class]; repeat for more. Default: the suite's line-up.")
]
BaseName = Annotated[str | None, typer.Option("--base", help="Another base: a name, a diffusers folder or a hub id.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many prompts a concept; the run is marked limited.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the erasers.")]
StorePath = Annotated[
    Path | None, typer.Option("--store", help="Where erasures and images are kept. Default: $CONCEPTBENCH_STORE, else ~/.cache/conceptbench.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with erasers of yours to register; repeat for more.")]
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


def planned(
    suite_name: str,
    erasers: list[str] | None,
    base_name: str | None,
    limit: int | None,
    seed: int,
    device: str,
    plugins: list[Path] | None,
    *,
    development: bool,
) -> tuple[Base, Plan]:
    """What ``plan`` and ``run`` both begin with: names checked before anything is loaded, then the base and the plan."""
    from conceptbench.core.manifests import load_suite
    from conceptbench.core.registry import ERASERS

    suite = load_suite(suite_name)
    for path in plugins or ():
        ERASERS.add_file(path)
    from conceptbench.engine.lineup import resolve
    from conceptbench.engine.plan import make_plan
    from conceptbench.models.families import load_base

    specs = list(dict.fromkeys(erasers if erasers else suite.erasers))
    for spec in specs:
        resolve(spec, family=None, tier="mini" if (base_name or suite.base) == "mini" else "paper")
    check_device(device)
    base = load_base(base_name or suite.base, device=device)
    entries = list({e.spec: e for e in (resolve(spec, family=base.info.family, tier=base.info.tier) for spec in specs)}.values())
    return base, make_plan(suite, base.info, entries, limit=limit, train_seed=seed, split="development" if development else None)
