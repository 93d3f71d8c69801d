"""``conceptbench leaderboard``: leaderboard CSVs as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Leaderboard CSVs: a page made of them.")


@app.callback()
def _leaderboard() -> None:
    """Leaderboard CSVs: a page made of them."""


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
