"""``conceptbench new``: files to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KINDS = ("eraser",)


def new(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Of the method: letters, digits, - and _.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path(),
) -> None:
    """Write NAME.py, a short eraser that trains, and test_NAME.py, which passes. Existing files are never touched."""
    from conceptbench.core.errors import unknown_name
    from conceptbench.engine.scaffold import new_eraser

    if kind not in KINDS:
        raise unknown_name("kind of thing", kind, KINDS)
    method, test = new_eraser(name, output)
    print(f"wrote {method} and {test}")
    print(f"  python -m pytest {test}")
    print(f"  conceptbench run mini-object --eraser {method} --eraser uce --limit 2 --output runs/{method.stem}")
