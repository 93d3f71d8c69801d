"""Result rows from what runs wrote."""

from __future__ import annotations

from pathlib import Path

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import read_packed
from conceptbench.core.results import ResultRow, from_csv

HINT = "give the folder that `conceptbench run --output` wrote, or a leaderboard CSV (.csv, .csv.gz)"
FILE = "leaderboard.csv"


def has_results(folder: Path) -> bool:
    """Whether a run has come to its end in a folder."""
    return (folder / FILE).is_file()


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
