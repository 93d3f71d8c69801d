"""``conceptbench export``: take an erasure away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    file: Annotated[Path, typer.Argument(help="An erasure of ours, or a checkpoint made elsewhere: a diffusers folder, a state dict, a .ckpt, a LoRA.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to: a folder for diffusers, else a .safetensors file.")],
    base: Annotated[str, typer.Option("--base", help="What it was made for: a name, a diffusers folder or a hub id.")] = "mini",
    form: Annotated[
        str, typer.Option("--form", help="diffusers (a whole pipeline), state-dict (the changed networks) or patch (the erasure alone).")
    ] = "diffusers",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write an erasure as a diffusers folder, a state dict or a patch. Hidden artefacts never leave."""
    from conceptbench.models.checkpoints import load_checkpoint, missing_checkpoint, notes_of
    from conceptbench.models.export import check_destination, export_erasure
    from conceptbench.models.families import load_base

    check_destination(output, form, force=force)
    if not file.exists():
        raise missing_checkpoint(file)
    loaded = load_base(base)
    erasure = load_checkpoint(file, loaded)
    for note in (*loaded.info.notes, *notes_of(erasure)):
        print(f"note: {note}", file=sys.stderr)
    if erasure.hidden:
        print(f"note: {len(erasure.hidden)} hidden artefacts are left out", file=sys.stderr)
    print(export_erasure(erasure, loaded, output, form, force=force))
