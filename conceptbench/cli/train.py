"""``conceptbench train``: class-conditional models and the classifiers that judge them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from conceptbench.cli import options


def train(
    model: Annotated[str, typer.Argument(help="cvae, ddpm or classifier.")],
    data: Annotated[str, typer.Argument(help="digits, mnist, cifar10 or stl10.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the model. Default: models/DATA-MODEL in the data folder.")] = None,
    data_folder: Annotated[
        Path | None, typer.Option("--data-folder", help="Folder of the data sets. Default: $CONCEPTBENCH_DATA, else ~/.cache/conceptbench/data.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")] = False,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps. Default: the recipe's.")] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help="Leave out the images of a class; repeat for more.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, order and noise.")] = 0,
    device: options.Device = "cpu",
) -> None:
    """Train a class-conditional model, or a classifier, by the recipe of its data set. To resume, run again.

    Example: conceptbench train cvae digits --without 3 --output models/without-3
    """
    from conceptbench.classes.recipes import recipe_of

    recipe_of(model, data)
    options.check_device(device)
    from conceptbench.classes.datasets import data_folder as usual_folder
    from conceptbench.classes.training.run import Training, summary
    from conceptbench.classes.training.run import train as run
    from conceptbench.engine.session import Stop

    folder = output or usual_folder(data_folder) / "models" / f"{data}-{model}"
    asked = Training(model, data, tuple(without or ()), steps, seed)
    with Stop().on_signals() as stop:
        description = run(asked, folder, data_folder=data_folder, download=download, device=device, check=stop.check)
    print(folder)
    for line in summary(description):
        print(line, file=sys.stderr)
