"""``conceptbench leaderboard``: results that others can check, merge and read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from conceptbench.core.documents import Problem

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Leaderboard CSVs: submissions of them, their check, their union, and a page.")

Allow = Annotated[
    list[str] | None, typer.Option("--allow", help="Let rows pass that are not for publication: limited, development, partial or failed; repeat for more.")
]
MOST = 40


@app.callback()
def _leaderboard() -> None:
    """Leaderboard CSVs: submissions of them, their check, their union, and a page."""


@app.command()
def export(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `conceptbench run --output` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the submission: new, or an earlier one, which is replaced.")],
    store: Annotated[Path | None, typer.Option("--store", help="Where the judges' answers are kept. Default: where each run says.")] = None,
) -> None:
    """Make a submission: the result rows, the evidence that they are derived from, and a manifest with the hash of every file.

    Example: conceptbench leaderboard export runs/mini --output submission
    """
    from conceptbench.leaderboard.exporting import export as write

    made = write(runs, output, store)
    manifest = made.manifest
    status = ", ".join(f"{n} {s}" for s, n in manifest.status.items())
    if made.repeated:
        print(f"note: {made.repeated} rows are in several runs and agree: each is there once", file=sys.stderr)
    for reason in dict.fromkeys(w.reason for w in manifest.without_evidence):
        own = [w for w in manifest.without_evidence if w.reason == reason]
        print(f"note: {sum(w.rows for w in own)} rows without evidence ({', '.join(w.protocol.partition('@')[0] for w in own)}): {reason}", file=sys.stderr)
    print(f"{output}: {manifest.rows} rows ({status}) of {len(manifest.runs)} runs; {len(manifest.files)} files; manifest {made.sha256}")


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Submission folders; or bare leaderboard CSVs (.csv, .csv.gz), of which only the schema is checked.")],
    allow: Allow = None,
    suite: Annotated[list[str] | None, typer.Option("--suite", help="YAML file of a suite that is not shipped; repeat for more.")] = None,
) -> None:
    """Check submissions: schema, hashes, completeness, and every value, interval and difference derived again from the evidence.

    Every problem is printed with file and line; exit code 2 if there is one. What no check can detect: images that were never drawn by the
    model that is named. Records that were made up together with their rows do not contradict each other; only running it again shows that.

    Example: conceptbench leaderboard check submission
    """
    from conceptbench.core.errors import EXIT_BAD_INPUT
    from conceptbench.leaderboard.checking import check as check_one

    _check_statuses(allow)
    failed = False
    for path in dict.fromkeys(paths):
        found = check_one(path, allow or (), suite or ())
        _print_problems(found.problems)
        for note in found.notes:
            print(f"{path}: note: {note}")
        verdict = f"{len(found.problems)} problems" if found.problems else "no problems"
        print(f"{path}: {verdict}; {found.rows} rows, {found.derived} of them derived again")
        failed = failed or bool(found.problems)
    if failed:
        raise typer.Exit(EXIT_BAD_INPUT)


@app.command()
def merge(
    paths: Annotated[list[Path], typer.Argument(help="Submission folders or leaderboard CSVs. Check submissions first.")],
    into: Annotated[Path, typer.Option("--into", help="The board, a .csv or .csv.gz; what it holds stays as it is.")],
    allow: Allow = None,
) -> None:
    """Add rows to a board: each number once. A number with another value than the board's is a conflict, and nothing is written (exit code 2).

    Example: conceptbench leaderboard merge submission --into board.csv
    """
    from conceptbench.core.errors import EXIT_BAD_INPUT
    from conceptbench.leaderboard.merging import merge as add

    _check_statuses(allow)
    merged = add(paths, into, allow or ())
    if merged.problems:
        _print_problems(merged.problems)
        print(f"{into}: {len(merged.problems)} problems; nothing was written")
        raise typer.Exit(EXIT_BAD_INPUT)
    for source, added in merged.added.items():
        print(f"{source}: {added} rows added")
    if merged.repeated:
        print(f"{merged.repeated} rows were there already and agree: they are not added again")
    print(f"{into}: {sum(merged.added.values())} rows added")


def _check_statuses(allow: Sequence[str] | None) -> None:
    from conceptbench.core.errors import unknown_name
    from conceptbench.leaderboard.board import REFUSED

    for name in allow or ():
        if name not in REFUSED:
            raise unknown_name("status for --allow", name, REFUSED)


def _print_problems(problems: Sequence[Problem]) -> None:
    """The problems with file and line, at most so many."""
    for problem in problems[:MOST]:
        print(problem)
    if len(problems) > MOST:
        print(f"... and {len(problems) - MOST} more problems")


@app.command()
def site(
    boards: Annotated[list[Path], typer.Argument(help="leaderboard.csv files, packed (.csv.gz) or not.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write, an .html file.")],
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Folder of a run whose images are shown as sample pairs beside its rows; repeat for more.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "ConceptBench leaderboard",
    author: Annotated[str, typer.Option("--author", help="For the BibTeX entry.")] = "",
    year: Annotated[str, typer.Option("--year", help="For the BibTeX entry.")] = "",
    url: Annotated[str, typer.Option("--url", help="Where the page will be, for the BibTeX entry.")] = "",
) -> None:
    """Write one page with all rows: tables by suite, a figure, filters, and the provenance of every number. It needs no server.

    Example: conceptbench leaderboard site runs/mini/leaderboard.csv --images runs/mini --output board.html
    """
    from conceptbench.leaderboard.site import write_site
    from conceptbench.leaderboard.site_citing import Citation

    made = write_site(boards, output, images or (), Citation(title, author, year, url))
    if made.repeated:
        print(f"note: {made.repeated} rows were given more than once and agree: each is shown once", file=sys.stderr)
    if made.split:
        print(f"note: files that give other values for the same number are shown apart: {', '.join(made.split)}", file=sys.stderr)
    if made.left_out:
        print(f"note: {made.left_out} strips of images had no room; those of erased concepts come first", file=sys.stderr)
    if images and not made.strips:
        print("note: no image belongs to a row: the rows are of other weights than the runs", file=sys.stderr)
    print(f"{made.path}: {made.rows} rows in {made.tabs} tabs, {made.strips} strips of images, {made.size / 1e6:.1f} MB")
