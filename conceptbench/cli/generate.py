"""``conceptbench generate``: only draw images, from texts or a prompt set, with an erasure or without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptbench.cli import options


def generate(
    texts: Annotated[list[str] | None, typer.Argument(help="Prompts. Or give --prompts.")] = None,
    prompts: Annotated[str | None, typer.Option("--prompts", help="A prompt set's name or a CSV file with columns prompt_id, text, concept.")] = None,
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", "-c", help="An erasure file of ours, or weights made elsewhere.")] = None,
    concepts: Annotated[
        str | None, typer.Option("--concepts", help="a,b: apply only these concepts' parts of a separable erasure; with --recover: bring only these back.")
    ] = None,
    recover: Annotated[bool, typer.Option("--recover", help="Bring what was erased back with the erasure's hidden artefact, e.g. KPOP's prompt.")] = False,
    recover_with: Annotated[
        str, typer.Option("--recover-with", help="With --recover: another target's artefact by its name, or 'random': one of the same norm.")
    ] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images and manifest.csv.")] = Path("images"),
    base: Annotated[str, typer.Option("--base", help="A name, a diffusers folder or a hub id.")] = "mini",
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Images a prompt.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the noise: image k of a prompt has seed + k, rows with a seed of their own keep it.")] = 0,
    scheduler: Annotated[str, typer.Option("--scheduler", help="ddim, ddpm, pndm, lms, euler, dpm++ or unipc.")] = "ddim",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Network steps. Default: 10 on mini, else 50.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Default: 3 on mini, else 7.5.")] = None,
    size: Annotated[int | None, typer.Option("--size", min=8, help="Pixels a side. Default: the base's own.")] = None,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    batch: options.Batch = 32,
    precision: options.Precision = "fp32",
    compiled: options.Compile = False,
) -> None:
    """Draw images into a folder with a manifest.csv. To resume, run again.

    Example: conceptbench generate "a photo of a church" -n 4 --checkpoint erasures/uce-mini-object.safetensors --output church
    """
    from conceptbench.cli.run import reporter
    from conceptbench.core.errors import UserInputError
    from conceptbench.core.manifests import load_prompts
    from conceptbench.core.schemas import Prompt
    from conceptbench.engine.drawing import chosen_part, draw_folder, sampler_of
    from conceptbench.engine.session import Session, Stop
    from conceptbench.engine.store import Store
    from conceptbench.models.checkpoints import load_checkpoint
    from conceptbench.models.families import load_base

    if bool(texts) == bool(prompts):
        raise UserInputError("give prompts as arguments or a prompt set with --prompts, and not both", 'e.g. conceptbench generate "a photo of a church"')
    rows = list(load_prompts(prompts)) if prompts else [Prompt(prompt_id=f"p{i}", text=t, concept="-") for i, t in enumerate(texts or ())]
    options.check_device(device)
    loaded = load_base(base, device=device, precision=precision, compiled=compiled)
    erasure = load_checkpoint(Path(checkpoint), loaded) if checkpoint else None
    erasure = chosen_part(erasure, [c.strip() for c in concepts.split(",")] if concepts else None, recover, recover_with)
    sampler = sampler_of(loaded.info.tier, scheduler, steps, guidance, size)
    with Stop().on_signals() as stop:
        session = Session(reporter=reporter(), stop=stop, batch=batch)
        manifest = draw_folder(loaded, rows, sampler, output, Store(options.store_root(store)), session, erasure, number=number, seed=seed)
    print(manifest)
