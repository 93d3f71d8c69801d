"""``conceptbench compare``: two models, image by image."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from conceptbench.engine.compare import Comparison


def compare(
    a: Annotated[str, typer.Argument(help="RUN[:ERASER[:PRESET]], RUN being the folder that `run --output` wrote.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The same; the run may be A's. `base` is an eraser's name, too.", metavar="B")],
    concepts: Annotated[bool, typer.Option("--concepts", help="Also a line for each concept, beside that over all of a role.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare although suite, base, sampler, split, judge or protocol differ.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Also write the table to a CSV file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare two models on the images that they share: same task, prompt, image number and seed.

    `compare runs/mini:esd-x runs/mini:uce` compares two erasers of one run, `compare runs/old:esd-x runs/new:esd-x` one eraser of
    two runs, `compare runs/old runs/new` every eraser and preset that both runs have. Differences are A - B, with 95 % intervals.
    Rates get McNemar's exact test, adjusted over all lines of the table (Holm). It needs independent pairs: with several images a
    prompt, each prompt counts once, for the model that has more successes in it. Exit code 4 if the runs are not comparable.
    """
    from conceptbench.core.files import write_text
    from conceptbench.engine.compare import compare as compared
    from conceptbench.engine.compare import to_csv
    from conceptbench.engine.sides import read_side

    lines, notes = compared(read_side(a), read_side(b), force=force, each_concept=concepts)
    if csv_file is not None:
        write_text(csv_file, to_csv(lines))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps({"a": a, "b": b, "notes": notes, "comparisons": [vars(line) for line in lines]}, indent=1, ensure_ascii=False))
    else:
        _print_table(lines, a, b)


def _print_table(lines: list[Comparison], a: str, b: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    several = len({(line.a, line.b) for line in lines}) > 1
    title = f"A: {a}, B: {b}; A - B with 95 % intervals; rates in per cent; p: McNemar exact, Holm over {sum(c.p is not None for c in lines)} tests"
    table = Table(title=Text(title), title_justify="left")
    for head in ("task", "role", *(["models"] if several else []), "metric", "concept", "A", "B", "A - B", "pairs", "unpaired", "only A : only B", "p"):
        table.add_column(head, overflow="fold")
    for line in lines:
        models = line.a if line.a == line.b else f"{line.a} / {line.b}"
        better = f"{line.metric} ({line.better} is better)" if line.better in ("higher", "lower") else line.metric
        scale, digits = (100, 0) if line.test else (1, 2)
        difference = _number(line.delta, scale, digits)
        if line.delta_low is not None and line.delta_high is not None:
            difference += f" [{_number(line.delta_low, scale, digits)}, {_number(line.delta_high, scale, digits)}]"
        cells = [
            line.task,
            line.role,
            *([models] if several else []),
            better,
            line.concept,
            _number(line.value_a, scale, digits),
            _number(line.value_b, scale, digits),
        ]
        cells += [difference, str(line.pairs), str(line.only_a + line.only_b + line.failed)]
        cells += (
            [f"{line.discordant_a} : {line.discordant_b}" + (" prompts" if line.test == "mcnemar-by-prompt" else ""), _p(line.p_holm)]
            if line.test
            else ["", ""]
        )
        table.add_row(*(Text(c) for c in cells))
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _number(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
