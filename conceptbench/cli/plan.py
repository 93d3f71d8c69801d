"""``conceptbench plan``: a dry run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from conceptbench.cli import options


def plan(
    context: typer.Context,
    suite: options.Suite = "mini",
    eraser: options.Erasers = None,
    base: options.BaseName = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    plugin: options.Plugins = None,
    development: options.Dev = False,
    checkpoint: options.Checkpoints = None,
    combine: options.Combinations = None,
    task: options.Tasks = None,
    precision: options.Precision = "fp32",
    compiled: options.Compile = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say what a run would do: erasures and images to make or already in the store. Changes nothing."""
    from conceptbench.engine.preview import preview
    from conceptbench.engine.store import Store

    loaded, made = options.planned(context.params)
    figures = preview(made, Store(options.store_root(store)), loaded)
    if as_json:
        print(json.dumps(figures.as_dict(), indent=1))
        return
    print(f"suite {made.suite.name} {made.suite.version} on {made.info.id} ({made.info.family}); erasers: {', '.join(e.spec for e in made.entries) or 'none'}")
    for line in figures.lines():
        print(line)
