"""``conceptbench erase``: only make the erasures of a suite, as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from conceptbench.cli import options


def erase(
    context: typer.Context,
    suite: options.Suite = "mini",
    eraser: options.Erasers = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for one .safetensors file an eraser and task.")] = Path("erasures"),
    base: options.BaseName = None,
    seed: options.Seed = 0,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    plugin: options.Plugins = None,
    task: options.Tasks = None,
) -> None:
    """Erase only: write each erasure of the line-up as a file for generate, export and --checkpoint. To resume, run again.

    Example: conceptbench erase mini --eraser uce --task object --output erasures
    """
    from conceptbench.cli.run import reporter
    from conceptbench.core.errors import EXIT_FAILED_UNITS, UnitFailedError
    from conceptbench.core.files import safe_name
    from conceptbench.engine.erasing import erase as make
    from conceptbench.engine.session import Journal, Session, Stop
    from conceptbench.engine.store import Store

    loaded, plan = options.planned(context.params)
    where = Store(options.store_root(store))
    with Stop().on_signals() as stop:
        session = Session(reporter=reporter(), journal=Journal(output / "journal.jsonl"), stop=stop)
        failed = 0
        for unit in plan.erasures:
            if unit.task.restored:
                note = "brings targets back only while images are drawn: see --concepts and --recover of `conceptbench generate`"
                print(f"note: {unit.name} is left out: it {note}", file=sys.stderr)
                continue
            try:
                erasure, made = make(loaded, unit, plan.suite, where, train_seed=seed, session=session)
            except UnitFailedError as error:
                session.reporter.abandon()
                print(f"failed: {error.message}", file=sys.stderr)
                failed += 1
                continue
            path = output / f"{safe_name(f'{unit.entry.label}-{unit.entry.preset}-{unit.task.id}')}.safetensors"
            erasure.save(path)
            print(path)
            print(f"{unit.name}: {'made' if made else 'from the store'}, weights {erasure.weights_hash()[:16]}", file=sys.stderr)
    if failed:
        raise typer.Exit(EXIT_FAILED_UNITS)
