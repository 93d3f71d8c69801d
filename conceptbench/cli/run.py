"""``conceptbench run``: carry out a suite."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptbench.cli import options

if TYPE_CHECKING:
    from conceptbench.core.results import ResultRow
    from conceptbench.engine.progress import Reporter

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for leaderboard.csv, results.json and report.html. Default: runs/SUITE.")]


def run(
    suite: options.Suite = "mini",
    eraser: options.Erasers = None,
    output: Output = None,
    base: options.BaseName = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a forward pass; on a CPU it changes no byte.")] = 32,
    plugin: options.Plugins = None,
    development: options.Dev = False,
) -> None:
    """Erase, draw, judge and score; what is in the store already is not done again. To resume, run again."""
    from conceptbench.core.errors import EXIT_FAILED_UNITS
    from conceptbench.engine.preview import image_rate_name, record_rates
    from conceptbench.engine.report import report_from_results
    from conceptbench.engine.run import Runner, write_results
    from conceptbench.engine.store import Store

    loaded, plan = options.planned(suite, eraser, base, limit, seed, device, plugin, development=development)
    folder = output or Path("runs") / (plan.suite.name + ("-development" if development else ""))
    where = Store(options.store_root(store))
    for note in loaded.info.notes:
        print(f"note: {note}", file=sys.stderr)
    runner = Runner(loaded, plan, where, batch=batch, reporter=_reporter())
    outcome = runner.run()
    write_results(outcome, runner.judges, folder, where)
    report_from_results(folder, where)
    work = outcome.work
    rates = {f"erase/{r.eraser}:{r.preset}": r.erase_seconds for r in outcome.rows if r.erase_seconds is not None}
    if work.images:
        rates[image_rate_name(plan)] = (work.seconds["generate"] + work.seconds["judge"]) / work.images
    record_rates(where, rates)
    _print_table(outcome.rows, plan.suite.headline.erased, plan.suite.headline.kept)
    print(f"made {work.erasures} erasures and {work.images} images; results in {folder}/ (open report.html)", file=sys.stderr)
    for failure in outcome.failures:
        print(f"failed: {failure['eraser']} [{failure['task']}]: {failure['reason']}", file=sys.stderr)
    if outcome.failures:
        raise typer.Exit(EXIT_FAILED_UNITS)


def _reporter() -> Reporter:
    """A bar on a terminal, lines elsewhere."""
    from conceptbench.engine.progress import Lines

    if not sys.stderr.isatty():
        return Lines()
    from conceptbench.cli.bars import Bars

    return Bars()


def _print_table(rows: list[ResultRow], erased: str, kept: str) -> None:
    """The leaderboard on the terminal: one line an eraser and task."""
    from rich.console import Console
    from rich.table import Table

    from conceptbench.engine.report import row_names

    overall: dict[tuple[str, ...], ResultRow] = {(r.task, r.eraser, r.preset, r.metric, r.role): r for r in rows if r.concept == "*"}
    names = row_names([(r.eraser, r.preset) for r in rows])
    columns = [(erased, "target"), (kept, "retained"), ("nothing", "target"), ("nothing", "retained"), ("clip_score", "target"), ("clip_score", "retained")]
    table = Table(title="per cent (CLIP: cosine x 100) with 95 % intervals; n and protocols are in leaderboard.csv", title_justify="left")
    for head in ("task", "eraser", *(f"{metric} ({role})" for metric, role in columns)):
        table.add_column(head, no_wrap=True)
    for task, eraser, preset in dict.fromkeys((r.task, r.eraser, r.preset) for r in rows):
        table.add_row(task, names[eraser, preset], *(_cell(overall.get((task, eraser, preset, metric, role))) for metric, role in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(row: ResultRow | None) -> str:
    if row is None or row.value is None:
        return "-"
    scale, digits = (100, 0) if row.unit == "rate" else (1, 1)
    value = f"{scale * row.value:.{digits}f}"
    if row.ci_low is None or row.ci_high is None:
        return value
    return f"{value} [{scale * row.ci_low:.{digits}f}, {scale * row.ci_high:.{digits}f}]"
