"""``conceptbench score``: only score, what the store has or a folder of images made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptbench.cli import options, score_records


def score(
    context: typer.Context,
    suite: options.Suite = "mini",
    images: Annotated[Path | None, typer.Option("--images", help="A folder of images made elsewhere, for one task.")] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="CSV with columns file and prompt_id or prompt; else captions are read from file names.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the rows call the images of --images.")] = "elsewhere",
    paired: Annotated[bool, typer.Option("--paired", help="The images have the suite's seeds and sampler: compare them with the base's one by one.")] = False,
    eraser: options.Erasers = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the tables and report.html. Default: runs/SUITE-scored.")] = None,
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
    records: score_records.Records = None,
    mapping: score_records.Map = None,
    base_records: score_records.BaseRecords = None,
    concept: score_records.ConceptName = "",
    erased: score_records.Erased = "",
    kept: score_records.Kept = "",
    metric: score_records.MetricNames = None,
    judge_id: score_records.JudgeId = None,
    label: score_records.Label = None,
    separator: score_records.Separator = "",
    threshold: score_records.Threshold = None,
    scale: score_records.Scale = "x100",
    encoding: score_records.Encoding = "utf-8",
) -> None:
    """Score without making anything: a run that is still under way (rows are marked partial), a folder of images, or another tool's records.

    Example: conceptbench score mini --task object --images my_images --name my-method

    Example: conceptbench score --records nudenet.csv --map labels=label --map scores=score --erased nudity
    """
    if records is not None:
        score_records.score_records(context.params)
        return
    score_records.without_records(context.params)
    from conceptbench.cli.run import carry_out, finish
    from conceptbench.core.errors import UserInputError
    from conceptbench.engine.foreign import claims_of_manifest, claims_of_names, score_folder
    from conceptbench.engine.run import Runner
    from conceptbench.engine.store import Store

    if images is None and (manifest is not None or paired):
        raise UserInputError("--manifest and --paired are about a folder of images", "give it with --images")
    if images is not None and (eraser or checkpoint or combine):
        raise UserInputError("--images scores a folder by itself", "score erasers or checkpoints in another call, then use `conceptbench compare`")
    if images is not None and not images.is_dir():
        raise UserInputError(f"no such folder: {images}", "give a folder of images")
    loaded, plan = options.planned(context.params)
    folder, root = output or Path("runs") / f"{plan.suite.name}-scored", options.store_root(store)
    if images is None:
        carry_out(loaded, plan, folder, root, collect=True)
        return
    if len(plan.suite.tasks) != 1:
        raise UserInputError("a folder of images belongs to one task", f"choose it with --task: {', '.join(t.id for t in plan.suite.tasks)}")
    runner = Runner(loaded, plan.without_erasers(), Store(root), collect=True)
    claims = claims_of_manifest(images, manifest) if manifest else claims_of_names(images)
    score_folder(runner, plan.suite.tasks[0].id, name, claims, paired=paired)
    finish(runner, folder)
