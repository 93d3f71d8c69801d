"""``conceptbench table``: papers' tables, published beside measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conceptbench.cli import options

if TYPE_CHECKING:
    from conceptbench.core.results import ResultRow
    from conceptbench.engine.plan import Plan
    from conceptbench.leaderboard.cells import FilledTable
    from conceptbench.leaderboard.specs import Run, TableSpec, Tier
    from conceptbench.models.base import Base

app = typer.Typer(name="table", no_args_is_help=True, help="Regenerate the tables of papers: published figures beside measured ones.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="A table's id, such as kpop/2, or a YAML file.")]
TierName = Annotated[str, typer.Option("--tier", help="mini (offline, minutes), or paper (the paper's base, prompts and judges).")]
Format = Annotated[str, typer.Option("--format", help="text, markdown, latex, csv or html.")]
Force = Annotated[bool, typer.Option("--force", help="Let numbers of different protocol or suite version share a column.")]
Bases = Annotated[list[str] | None, typer.Option("--base", help="[RUN=]BASE: another base for all runs of the table, or for one; repeat for more.")]
Erasers = Annotated[
    list[str] | None,
    typer.Option("--eraser", "-e", help="Another method beside the paper's, as for `run`: NAME... or FILE.py[:Class]; repeat for more."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the runs and of table.md, .tex, .csv and .html. Default: runs/tables/ID-TIER.")]


@app.command("list")
def list_tables() -> None:
    """List the tables: id, title, tiers, cells, and where they are from."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from conceptbench.leaderboard.spec_files import load_table, table_ids
    from conceptbench.leaderboard.specs import cells_of

    shown = Table("id", "title", "tiers", "cells", "from")
    for name in table_ids():
        spec = load_table(name)
        cells = "/".join(str(len(cells_of(spec, t))) for t in spec.tiers)
        shown.add_row(*(Text(x) for x in (name, spec.title, ", ".join(spec.tiers), cells, spec.source)))
    Console(width=None if sys.stdout.isatty() else 180).print(shown)


@app.command()
def show(
    table: Name,
    tier: TierName = "mini",
    results: Annotated[
        list[str] | None, typer.Option("--results", help="[RUN=]FOLDER of a run, or a leaderboard CSV; repeat. Default: of `table run`.")
    ] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Show the results that come with the package (mini tier).")] = False,
    eraser: Erasers = None,
    plugin: options.Plugins = None,
    output: Output = None,
    form: Format = "text",
    force: Force = False,
) -> None:
    """Show published figures beside what was measured so far; measures nothing."""
    from conceptbench.core.errors import UserInputError
    from conceptbench.leaderboard.run_results import has_results, kept_results, read_rows

    _check_format(form)
    spec = _spec(table, tier, eraser, plugin)
    chosen = spec.tier(tier)
    folder, runs = output or _folder(spec, tier), [r.id for r in chosen.runs]
    if kept and (results or output or tier != "mini"):
        raise UserInputError("--kept shows the results of the mini tier that come with the package", "leave out --results, --output and --tier")
    own = {run: folder / run for run in runs if has_results(folder / run)}
    given = kept_results(spec.id, runs) if kept else _given(results, runs) if results else own
    _print(_filled(spec, tier, {run: read_rows(path) for run, path in given.items()}, force=force), form)


@app.command("plan")
def plan_table(
    table: Name,
    tier: TierName = "mini",
    base: Bases = None,
    eraser: Erasers = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    plugin: options.Plugins = None,
    precision: options.Precision = "fp32",
) -> None:
    """Say what the runs of a table would do: units to make or in the store, images, disk and time. Changes nothing."""
    from conceptbench.engine.preview import preview, total
    from conceptbench.engine.store import Store

    spec = _spec(table, tier, eraser, plugin)
    every = []
    for run, loaded, made in _planned(spec, tier, base, limit=limit, seed=seed, device=device, precision=precision):
        figures = preview(made, Store(options.store_root(store)), loaded)
        every.append(figures)
        print(f"{run.id}: suite {made.suite.name} {made.suite.version} on {made.info.id}; {len(made.suite.tasks)} task(s), {len(made.entries)} eraser(s)")
        for line in figures.lines():
            print(f"  {line}")
    print(f"in all, {len(every)} run(s); what runs share is counted in each:" if len(every) > 1 else "in all:")
    for line in total(every).lines():
        print(f"  {line}")


@app.command("run")
def run_table(
    table: Name,
    tier: TierName = "mini",
    base: Bases = None,
    eraser: Erasers = None,
    limit: options.Limit = None,
    output: Output = None,
    seed: options.Seed = 0,
    store: options.StorePath = None,
    device: options.Device = "cpu",
    batch: options.Batch = 32,
    plugin: options.Plugins = None,
    precision: options.Precision = "fp32",
    compiled: options.Compile = False,
    form: Format = "text",
    force: Force = False,
) -> None:
    """Carry out the runs of a table and show it; what is in the store is not done again. To resume, run again.

    Writes table.md, table.tex, table.csv and table.html, and each run's own results, into the output folder. Exit code 3 if
    units failed: the table then has the others.
    """
    from conceptbench.cli.run import carry_out
    from conceptbench.core.errors import EXIT_FAILED_UNITS
    from conceptbench.core.files import write_text
    from conceptbench.leaderboard.rendering import FORMATS
    from conceptbench.leaderboard.run_results import read_rows

    _check_format(form)
    spec = _spec(table, tier, eraser, plugin)
    folder, failed, results = output or _folder(spec, tier), False, {}
    for run, loaded, made in _planned(spec, tier, base, limit=limit, seed=seed, device=device, precision=precision, compiled=compiled):
        print(f"run {run.id} of table {spec.id}: suite {made.suite.name}", file=sys.stderr)
        try:
            carry_out(loaded, made, folder / run.id, options.store_root(store), batch=batch, show=False)
        except typer.Exit as stop:
            failed = failed or stop.exit_code == EXIT_FAILED_UNITS
        results[run.id] = read_rows(folder / run.id)
    filled = _filled(spec, tier, results, force=force)
    for name, render in FORMATS.values():
        write_text(folder / name, render(filled))
    _print(filled, form)
    print(f"the table in {folder}/ (open table.html)", file=sys.stderr)
    if failed:
        raise typer.Exit(EXIT_FAILED_UNITS)


def _spec(table: str, tier: str, erasers: list[str] | None, plugins: list[Path] | None) -> TableSpec:
    """The table, with further methods."""
    from conceptbench.core.registry import ERASERS
    from conceptbench.leaderboard.adding import with_methods
    from conceptbench.leaderboard.spec_files import load_table

    spec = load_table(table)
    spec.tier(tier)
    for path in plugins or ():
        ERASERS.add_file(path)
    return with_methods(spec, "mini" if tier == "mini" else "paper", erasers or ())


def _folder(spec: TableSpec, tier: str) -> Path:
    return Path("runs") / "tables" / f"{spec.id.replace('/', '-')}-{tier}"


def _planned(spec: TableSpec, tier: str, bases: list[str] | None, **asked: Any) -> Iterator[tuple[Run, Base, Plan]]:
    """The runs of a tier with their plans; names are checked before the first is carried out."""
    runs = spec.tier(tier).runs
    chosen = _given(bases or (), [r.id for r in runs])
    bases_of = {run.id: str(chosen[run.id]) if run.id in chosen else run.base for run in runs}
    every = [
        (
            run,
            {
                "suite": run.suite,
                "base": bases_of[run.id],
                "line_up": run.erasers,
                "task": list(run.tasks),
                **asked,
            },
        )
        for run in runs
    ]
    for _, one in every:  # a typing error in the last run is found before hours of the first
        options.checked_names(one)
    for run, one in every:
        yield run, *options.planned(one)


def _given(values: list[str] | tuple[str, ...], ids: list[str]) -> dict[str, Path]:
    """``[RUN=]VALUE`` by run; a value without a run is of all that are not named."""
    from conceptbench.core.errors import UserInputError, unknown_name

    named: dict[str, Path] = {}
    for value in values:
        run, equals, path = value.partition("=")
        if not equals:
            run, path = "", value
        elif run not in ids:
            raise unknown_name("run of the table", run, ids)
        if run in named:
            raise UserInputError(f"{value!r} is the second for {run or 'all runs'}", f"name the run in front of it, RUN={path}; runs: {', '.join(ids)}")
        named[run] = Path(path)
    everywhere = named.pop("", None)
    return ({} if everywhere is None else dict.fromkeys(ids, everywhere)) | named


def _filled(spec: TableSpec, tier: str, results: dict[str, list[ResultRow]], *, force: bool) -> FilledTable:
    from conceptbench.leaderboard.cells import fill

    name: Tier = "mini" if tier == "mini" else "paper"
    return fill(spec, name, results, force=force)


def _check_format(form: str) -> None:
    from conceptbench.core.errors import unknown_name
    from conceptbench.leaderboard.rendering import FORMATS

    if form not in ("text", *FORMATS):
        raise unknown_name("format", form, ("text", *FORMATS))


def _print(filled: FilledTable, form: str) -> None:
    from conceptbench.leaderboard.rendering import FORMATS

    _check_format(form)
    if form != "text":
        print(FORMATS[form][1](filled), end="")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from conceptbench.leaderboard.grids import make_grid
    from conceptbench.leaderboard.rendering import marks

    grid = make_grid(filled)
    shown = Table(title=Text(grid.title), title_justify="left")
    for _ in grid.rows[0].labels if grid.rows else ():
        shown.add_column("", overflow="fold")
    for column in grid.columns:
        shown.add_column(Text("\n".join(x for x in column.labels if x) + marks(column.notes)), justify="right")
    for row in grid.rows:
        cells = ["\n".join(x for x in (c.published + marks(c.notes), f"{c.measured} {c.interval}".strip()) if x) for c in row.cells]
        shown.add_row(*(Text(x) for x in (*row.labels[:-1], row.labels[-1] + marks(row.notes), *cells)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(shown)
    for i, note in enumerate(grid.footnotes, start=1):
        print(f"{marks((i,))} {note}")
    for fact in grid.facts:
        print(fact)
