"""Result rows from what runs wrote, and those of tables that are kept in the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import read_packed
from conceptbench.core.results import ResultRow, from_csv

HINT = "give the folder that `conceptbench run --output` wrote, or a leaderboard CSV (.csv, .csv.gz)"
FILE = "leaderboard.csv"


def has_results(folder: Path) -> bool:
    """Whether a run has come to its end in a folder."""
    return (folder / FILE).is_file()


def kept_results(table: str, runs: Sequence[str]) -> dict[str, Path]:
    """The files of a table's runs on the mini tier that come with the package, ``results/tables/kpop-2-main.csv.gz``.

    Args:
        table: its id.
        runs: ids of its runs.

    Raises:
        UserInputError: none of them is kept.
    """
    folder = Path(str(files("conceptbench.leaderboard"))) / "results" / "tables"
    found = {run: folder / f"{table.replace('/', '-')}-{run}.csv.gz" for run in runs}
    there = {run: path for run, path in found.items() if path.is_file()}
    if not there:
        raise UserInputError(f"no results of table {table} are kept", f"measure it: conceptbench table run {table}")
    return there


def read_rows(path: Path) -> list[ResultRow]:
    """The rows of a run's folder or of a leaderboard CSV, which may be packed.

    Raises:
        UserInputError: there are none, or the file is damaged.
    """
    file = path / FILE if path.is_dir() else path
    try:
        text = read_packed(file)
    except (OSError, ValueError) as error:
        raise UserInputError(f"no readable results in {path}: {error}", HINT) from error
    return from_csv(text, str(file))
