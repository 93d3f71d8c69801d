"""``conceptbench report``: the report of a finished run again, as a table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptbench.cli import options


def report(
    output: Annotated[Path, typer.Argument(help="The folder that `run --output` wrote.")] = Path("runs/mini"),
    store: options.StorePath = None,
) -> None:
    """Write report.html again from a run's results.json and the store's images."""
    from conceptbench.engine.report import report_from_results
    from conceptbench.engine.store import Store

    page = report_from_results(output, None if store is None else Store(store))
    print(page)
