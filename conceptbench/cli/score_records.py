"""``conceptbench score --records``: aggregates of per-image records that other tools made."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from conceptbench.core.results import ResultRow
    from conceptbench.engine.foreign_records import ForeignFile

Records = Annotated[Path | None, typer.Option("--records", help="A CSV, TSV or JSONL file that another tool made, one row an image; needs --map.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="ROLE=COLUMN, or a YAML file of them; repeat. Roles: image, number, prompt, prompt_id, concept, erased; labels, scores, detections; "
        "top and top_scores (patterns such as category_top{}); clip, clip-subject, clip-content, lpips, gcd, faces; value:NAME, rate:NAME.",
    ),
]
BaseRecords = Annotated[Path | None, typer.Option("--base-records", help="The base's records for the same prompts and noise, for paired differences.")]
ConceptName = Annotated[str, typer.Option("--concept", help="The concept of the whole file of --records.")]
Erased = Annotated[str, typer.Option("--erased", help="Concepts of --records that were erased: A,B; all others are retained.")]
Kept = Annotated[str, typer.Option("--kept", help="Concepts of --records that were not erased: C,D.")]
MetricNames = Annotated[
    list[str] | None,
    typer.Option("--metric", help="Of --records: NAME[:OPTION=VALUE,...], e.g. ner:threshold=0.5,labels=core; repeat. Default: all possible."),
]
JudgeId = Annotated[list[str] | None, typer.Option("--judge-id", help="[ROLE=]ID of the judge that wrote a column, e.g. top=resnet50-v2. Default: unknown.")]
Label = Annotated[list[str] | None, typer.Option("--label", help="CONCEPT=CLASS, a name or an index, where a concept is not called like its class; repeat.")]
Separator = Annotated[str, typer.Option("--separator", help="Between the labels, and the scores, of one cell. Default: found out (, ; | - or a JSON list).")]
Threshold = Annotated[float | None, typer.Option("--threshold", min=0, max=1, help="From which score on labels were kept, if the records have no scores.")]
Scale = Annotated[str, typer.Option("--scale", help="Of CLIP scores: x100, cosine or w2.5.")]
Encoding = Annotated[str, typer.Option("--encoding", help="Of --records, e.g. latin-1.")]

OWN = ("mapping", "base_records", "concept", "erased", "kept", "metric", "judge_id", "label", "separator", "threshold")
OTHERS = ("images", "manifest", "paired", "eraser", "checkpoint", "combine", "task", "limit", "base", "development")


def without_records(params: Mapping[str, Any]) -> None:
    """Refuses options of records where no records are given."""
    from conceptbench.core.errors import UserInputError

    given = [f"--{'map' if name == 'mapping' else name.replace('_', '-')}" for name in OWN if params.get(name)]
    if given:
        raise UserInputError(f"{', '.join(given)}: about records that another tool made", "give them with --records FILE")


def score_records(params: Mapping[str, Any]) -> None:
    """Scores records: writes ``leaderboard.csv`` and ``records.csv``, and prints the rows over all concepts.

    Args:
        params: the verb's options by name, as in ``typer.Context.params``: ``records``, those of :data:`OWN`, ``scale``, ``encoding``,
            ``name`` and ``output``.
    """
    from conceptbench.core.errors import UserInputError, unknown_name
    from conceptbench.core.files import write_text
    from conceptbench.core.results import to_csv
    from conceptbench.engine.record_answers import SCALES
    from conceptbench.engine.record_metrics import Request, metric_of
    from conceptbench.engine.record_scores import score_records as scored
    from conceptbench.engine.records import write_records

    wrong = [f"--{name}" for name in OTHERS if params.get(name)]
    if wrong:
        raise UserInputError(f"{', '.join(wrong)}: not about records that another tool made", "leave it out, or leave out --records")
    scale = params.get("scale") or "x100"
    if scale not in SCALES:
        raise unknown_name("scale of CLIP scores", scale, SCALES)
    file, base = _files(params)
    request = Request(
        name=_name(params),
        metrics=tuple(metric_of(text) for text in params.get("metric") or ()),
        judges=_pairs("--judge-id", params.get("judge_id"), bare=True),
        labels=_pairs("--label", params.get("label")),
        separator=params.get("separator") or "",
        threshold=params.get("threshold"),
        scale=scale,
    )
    result = scored(file, request, base)
    folder = params.get("output") or Path("runs") / f"{file.path.stem}-records"
    write_text(folder / "leaderboard.csv", to_csv(result.rows))
    write_records(folder / "records.csv", result.records)
    _print_rows(result.rows)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{len(file.records)} images; each concept is in {folder}/leaderboard.csv, each image in {folder}/records.csv", file=sys.stderr)


def _files(params: Mapping[str, Any]) -> tuple[ForeignFile, ForeignFile | None]:
    """The images and the base's; of the base's columns only those that say which image a row is, and what a base can have."""
    from conceptbench.engine.foreign_records import images_of, read_mapping
    from conceptbench.engine.foreign_tables import read_table

    mapping, encoding = read_mapping(params.get("mapping") or ()), params.get("encoding") or "utf-8"
    table = read_table(params["records"], encoding)
    erased, kept = ([n.strip() for n in (params.get(which) or "").split(",") if n.strip()] for which in ("erased", "kept"))
    file = images_of(table, mapping, concept=params.get("concept") or "", erased=erased, kept=kept)
    if params.get("base_records") is None:
        return file, None
    of_base = {role: column for role, column in mapping.items() if role not in ("concept", "erased", "lpips")}
    return file, images_of(read_table(params["base_records"], encoding), of_base)


def _name(params: Mapping[str, Any]) -> str:
    """The name of ``--name`` or, at its default, the file's."""
    from conceptbench.core.errors import UserInputError

    name = params.get("name")
    name = Path(params["records"]).stem if name in (None, "elsewhere") else str(name)
    if name == "base":
        raise UserInputError("`base` is what rows call the unmodified model", "give the images another --name")
    return name


def _pairs(option: str, entries: list[str] | None, *, bare: bool = False) -> dict[str, str]:
    """``KEY=VALUE`` entries; with ``bare`` an entry without a key has the key ``""``."""
    from conceptbench.core.errors import UserInputError

    found: dict[str, str] = {}
    for entry in entries or ():
        key, equals, value = (part.strip() for part in entry.rpartition("="))
        if not value or (not equals and not bare) or key in found:
            raise UserInputError(f"{option} {entry!r} is not of the form {'[ROLE=]ID' if bare else 'CONCEPT=CLASS'}, or there twice", "")
        found[key] = value
    return found


def _print_rows(rows: list[ResultRow]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="rates in per cent, with 95 % intervals; +- is the spread over images, no uncertainty", title_justify="left")
    for head in ("images", "role", "protocol", "value", "+-", "n", "failed", "prompts", "- base", "remark"):
        table.add_column(head, overflow="fold")
    for row in rows:
        if row.concept != "*":
            continue
        scale = 100 if row.unit == "rate" else 1
        value = _with_interval(row.value, row.ci_low, row.ci_high, scale)
        delta = _with_interval(row.delta, row.delta_low, row.delta_high, scale) if row.delta is not None else ""
        spread = "" if row.spread is None else f"{row.spread:.4g}"
        counts = (str(row.n_scored), str(row.n_failed or ""), str(row.clusters))
        remark = "; ".join(filter(None, (row.ci_kind if row.ci_low is None else "", row.reason)))
        table.add_row(*(Text(c) for c in (row.eraser, row.role, row.protocol, value, spread, *counts, delta, remark)))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _with_interval(value: float | None, low: float | None, high: float | None, scale: float) -> str:
    if value is None:
        return "-"
    shown = [f"{scale * v:.1f}" if scale == 100 else f"{v:.4g}" for v in (value, low, high) if v is not None]
    return shown[0] if len(shown) < 3 else f"{shown[0]} [{shown[1]}, {shown[2]}]"
