"""``conceptbench run``: carry out a suite."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptbench.cli import options

if TYPE_CHECKING:
    from conceptbench.core.results import ResultRow
    from conceptbench.engine.plan import Plan
    from conceptbench.engine.progress import Reporter
    from conceptbench.engine.run import Runner
    from conceptbench.engine.session import Shard
    from conceptbench.models.base import Base

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for leaderboard.csv, results.json and report.html. Default: runs/SUITE.")]


def run(
    context: typer.Context,
    suite: options.Suite = "mini",
    eraser: options.Erasers = None,
    output: Output = None,
    base: options.BaseName = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    batch: options.Batch = 32,
    plugin: options.Plugins = None,
    development: options.Dev = False,
    checkpoint: options.Checkpoints = None,
    combine: options.Combinations = None,
    task: options.Tasks = None,
    shard: Annotated[str, typer.Option("--shard", help="i/n: make only this part, for job arrays; a run without it then scores all.")] = "1/1",
    precision: options.Precision = "fp32",
    compiled: options.Compile = False,
    save_every: Annotated[float, typer.Option("--save-every", min=0, help="Seconds between two checkpoints of a training.")] = 20.0,
) -> None:
    """Erase, draw, judge and score; what is in the store already is not done again. To resume, run again.

    SIGTERM, or Ctrl-C once, finishes the batch and ends with exit code 143; nothing is lost.
    """
    from conceptbench.engine.session import Shard

    part = Shard.parse(shard)
    loaded, plan = options.planned(context.params)
    folder = output or Path("runs") / (plan.suite.name + ("-development" if development else ""))
    carry_out(loaded, plan, folder, options.store_root(store), batch=batch, shard=part, save_every=save_every)


def carry_out(
    base: Base,
    plan: Plan,
    folder: Path,
    store: Path,
    *,
    batch: int = 32,
    shard: Shard | None = None,
    collect: bool = False,
    save_every: float = 20.0,
    show: bool = True,
) -> None:
    """Runs a plan and shows what came out of it; with ``collect`` it makes nothing and scores what the store has."""
    from conceptbench.core.errors import WriteError
    from conceptbench.engine.run import Runner
    from conceptbench.engine.session import Journal, Session, Shard, Stop
    from conceptbench.engine.store import Store
    from conceptbench.engine.timing import record_rates

    where, journal = Store(store), Journal(folder / "journal.jsonl")
    for note in base.info.notes:
        print(f"note: {note}", file=sys.stderr)
    with Stop().on_signals() as stop:
        session = Session(reporter=reporter(), journal=journal, stop=stop, shard=shard or Shard(), batch=batch, checkpoint_seconds=save_every)
        runner = Runner(base, plan, where, session=session, collect=collect)
        outcome = runner.run()
    with contextlib.suppress(WriteError):  # of use for the next plan only
        record_rates(where, plan, outcome, session, base.device)
    finish(runner, folder, show=show)


def finish(runner: Runner, folder: Path, *, show: bool = True) -> None:
    """Writes a run's tables and page, prints the leaderboard if it shall be shown, and says what there is to say.

    Raises:
        typer.Exit: with code 3 if a unit failed.
    """
    from conceptbench.core.errors import EXIT_FAILED_UNITS
    from conceptbench.engine.provenance import write_results
    from conceptbench.engine.report import report_from_results

    outcome, session, suite = runner.outcome, runner.session, runner.plan.suite
    work = outcome.work
    made = f"made {work.erasures} erasures and {work.images} images"
    if session.shard.count > 1:
        print(f"{made} of shard {session.shard}; when all shards are done, the same command without --shard scores them", file=sys.stderr)
    else:
        with session.journal.stage("score", "results"):
            write_results(outcome, runner.measures.judges, folder, runner.store)
        with session.journal.stage("report", suite.name):
            report_from_results(folder, runner.store)
        if show:
            _print_table(outcome.rows, suite.headline.erased, suite.headline.kept)
        print(f"{made}; results in {folder}/ (open report.html)", file=sys.stderr)
    for note in work.notes:
        print(f"note: {note}", file=sys.stderr)
    for failure in outcome.failures:
        print(f"failed: {failure['eraser']} [{failure['task']}]: {failure['reason']}", file=sys.stderr)
    if outcome.failures:
        raise typer.Exit(EXIT_FAILED_UNITS)


def reporter() -> Reporter:
    """Bars on a terminal, lines elsewhere."""
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

    overall: dict[tuple[str, ...], ResultRow] = {(r.task, r.eraser, r.preset, r.protocol, r.role): r for r in rows if r.concept == "*"}
    names = row_names([(r.eraser, r.preset) for r in rows])
    columns = [(p, role) for metric, role in _columns(erased, kept) for p in dict.fromkeys(r.protocol for r in rows if (r.metric, r.role) == (metric, role))]
    table = Table(title="per cent (CLIP: cosine x 100) with 95 % intervals; n and protocols are in leaderboard.csv", title_justify="left")
    several = {p.partition("@")[0] for p, role in columns if sum(q.partition("@")[0] == p.partition("@")[0] and r == role for q, r in columns) > 1}
    for head in ("task", "eraser", *(f"{p if p.partition('@')[0] in several else p.partition('@')[0]} ({role})" for p, role in columns)):
        table.add_column(head, no_wrap=True)
    for task, eraser, preset in dict.fromkeys((r.task, r.eraser, r.preset) for r in rows):
        table.add_row(task, names[eraser, preset], *(_cell(overall.get((task, eraser, preset, protocol, role))) for protocol, role in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _columns(erased: str, kept: str) -> list[tuple[str, str]]:
    """(metric, role) of the leaderboard on the terminal; a metric with two protocols has two columns."""
    headline = [(erased, "target"), *((kept, role) for role in ("retained", "restored", "unseen"))]
    return list(dict.fromkeys([*headline, *((m, r) for m in ("nothing", "clip_score") for r in ("target", "retained"))]))


def _cell(row: ResultRow | None) -> str:
    if row is None or row.value is None:
        return "-"
    scale, digits = (100, 0) if row.unit == "rate" else (1, 1)
    value = f"{scale * row.value:.{digits}f}"
    if row.ci_low is None or row.ci_high is None:
        return value
    return f"{value} [{scale * row.ci_low:.{digits}f}, {scale * row.ci_high:.{digits}f}]"
