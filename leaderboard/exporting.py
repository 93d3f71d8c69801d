"""``conceptbench leaderboard export``: a submission made of the folders of runs.

::

    FOLDER/manifest.json        what is in it (:mod:`conceptbench.leaderboard.manifest`)
    FOLDER/leaderboard.csv      the result rows of all runs, each number once
    FOLDER/evidence/RUN/...     what the numbers are derived from (:mod:`conceptbench.leaderboard.evidence`)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from conceptbench import __version__
from conceptbench.core.documents import refuse
from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of, pretty_json, safe_name, sha256_file, write_bytes, write_text
from conceptbench.core.judge import JudgeCard
from conceptbench.core.results import to_csv
from conceptbench.core.schemas import Suite
from conceptbench.engine.images import BASE, FLOOR
from conceptbench.engine.measures import Measures, metric_sources
from conceptbench.engine.plan import Plan, make_plan
from conceptbench.engine.records import Record, read_records
from conceptbench.engine.store import Store
from conceptbench.leaderboard.board import Board, read_board
from conceptbench.leaderboard.deriving import plain_protocol, probe_protocols, without_evidence
from conceptbench.leaderboard.evidence import RECORDS, Gathered, gather, gather_probes, measures_of
from conceptbench.leaderboard.manifest import (
    FORMAT,
    NAME,
    ROWS,
    EraserUsed,
    ErasureUsed,
    Manifest,
    MetricUsed,
    RunPart,
    SuiteUsed,
    WithoutEvidence,
    read_manifest,
)
from conceptbench.leaderboard.merging import Union
from conceptbench.models.info import BaseInfo

HINT = "give the folder that `conceptbench run --output` wrote"
AGAIN = "run the same command again: it writes the folder anew, and nothing in the store is made twice"


@dataclass(frozen=True)
class Exported:
    """What an export gave: the submission's manifest and its sha256, and rows of several runs that are the same numbers."""

    folder: Path
    manifest: Manifest
    sha256: str
    repeated: int


@dataclass(frozen=True)
class _Run:
    """A run's folder as it was read."""

    folder: Path
    document: Mapping[str, Any]
    plan: Plan
    board: Board
    records: list[Record]
    cards: dict[str, JudgeCard]
    metrics: dict[str, str]

    @property
    def canonical(self) -> Mapping[str, Any]:
        part: Mapping[str, Any] = self.document["canonical"]
        return part


def export(runs: Sequence[Path], output: Path, store: Path | None = None) -> Exported:
    """Writes a submission.

    Args:
        runs: folders of runs.
        output: the submission's folder: new, empty, or an earlier submission, which is replaced.
        store: where judges' answers are; None for where each run says.

    Raises:
        UserInputError: a folder is not one of a run, a run's rows are not readable, two runs give other values for the same number, or
            the output holds other files.
    """
    if not runs:
        raise UserInputError("no run to export", HINT)
    read = [_read(folder) for folder in dict.fromkeys(runs)]
    union = Union()
    for run in read:
        union.add(run.board.rows)
    refuse(union.conflicts, "runs of the same suite, base and weights agree; export them apart")
    _make_room(output)
    parts, without = [], list[WithoutEvidence]()
    for number, run in enumerate(read):
        folder = f"evidence/{number}-{safe_name(run.folder.resolve().name)}"
        part, own = _export_run(run, output, folder, Path(run.document["store"]) if store is None else store)
        parts.append(part)
        without += own
    rows = [p.row for p in union.rows]
    alone = len(read) == 1 and len(rows) == len(read[0].board.rows)
    write_bytes(output / ROWS, (read[0].folder / "leaderboard.csv").read_bytes() if alone else to_csv(rows).encode())
    files = {p.relative_to(output).as_posix(): sha256_file(p) for p in sorted(output.rglob("*")) if p.is_file() and p != output / NAME}
    manifest = Manifest(
        format=FORMAT,
        conceptbench=__version__,
        rows=len(rows),
        status=dict(sorted(Counter(r.status for r in rows).items())),
        runs=tuple(parts),
        without_evidence=tuple(without),
        files=files,
    )
    write_text(output / NAME, pretty_json(manifest))  # the last: without it there is no submission
    return Exported(output, manifest, sha256_file(output / NAME), union.repeated)


# -- reading a run ---------------------------------------------------------------------------------------------------
def _read(folder: Path) -> _Run:
    document = _document(folder)
    board = read_board(folder / "leaderboard.csv")
    refuse(board.problems, AGAIN)
    try:
        canonical = document["canonical"]
        suite = Suite.model_validate(canonical["suite"])
        base = canonical["base"]
        info = BaseInfo(base["id"], base["family"], base["revision"], base["components"], precision=base["precision"])
        plan = make_plan(suite, info, [], limit=canonical["limited"], split="development" if canonical["development"] else None)
        cards = _cards(canonical["judges"], folder)
        metrics = {str(m["protocol"]): str(m["source_sha256"]) for m in canonical.get("metrics", ())}
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise UserInputError(f"no readable results in {folder}: {error!r}", HINT) from error
    found = {p.row.suite_sha256 for p in board.rows}
    if found != {plan.content_key()}:
        raise UserInputError(
            f"{folder}: its rows are of suite {', '.join(sorted(found))}, and its suite with today's concepts and prompts is {plan.content_key()}",
            f"a concept or prompt was edited since; {AGAIN.partition(':')[0]}",
        )
    return _Run(folder, document, plan, board, list(read_records(folder)), cards, metrics)


def _cards(documents: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, JudgeCard]:
    try:
        return {name: JudgeCard.of_document(d) for name, d in documents.items()}
    except ValueError as error:
        raise UserInputError(f"{folder / 'results.json'} has no whole cards of the judges ({error}): an older version wrote it", AGAIN) from error


def _document(folder: Path) -> dict[str, Any]:
    """``results.json`` without its rows: they are in ``leaderboard.csv``, and may be very many."""

    def without_rows(value: dict[str, Any]) -> dict[str, Any] | None:
        return None if "suite_version" in value and "protocol" in value else value

    try:
        document = json.loads((folder / "results.json").read_text(encoding="utf-8"), object_hook=without_rows)
    except (OSError, ValueError) as error:
        raise UserInputError(f"no readable results in {folder}: {error}", HINT) from error
    if not isinstance(document, dict) or document.get("format") != "conceptbench-results-1":
        raise UserInputError(f"{folder / 'results.json'} is not the results of a run", HINT)
    return document


def _make_room(output: Path) -> None:
    """Takes an earlier submission away; refuses a folder of anything else."""
    present = [p for p in output.rglob("*") if p.is_file()] if output.is_dir() else []
    if not present:
        return
    manifest, _ = read_manifest(output)
    strangers = [p for p in present if manifest is None or (p.relative_to(output).as_posix() not in manifest.files and p != output / NAME)]
    if strangers:
        raise UserInputError(f"{output} is not empty and not a submission: it has {strangers[0].relative_to(output)}", "choose another folder with --output")
    for path in present:
        path.unlink()


# -- writing it ------------------------------------------------------------------------------------------------------
def _export_run(run: _Run, output: Path, folder: str, root: Path) -> tuple[RunPart, list[WithoutEvidence]]:
    place, plan, canonical = output / folder, run.plan, run.canonical
    measures = measures_of(plan.suite, run.cards)
    write_bytes(place / RECORDS, (run.folder / RECORDS).read_bytes())
    gathered, missing = Gathered({}, {}), list[str]()
    if measures.sets or run.document["findings"]:
        if not root.is_dir():
            raise UserInputError(
                f"the store of {run.folder} is not at {root}, and metrics of sets and probes have their evidence there", "name it with --store"
            )
        store = Store(root)
        gathered = gather(plan.suite, plan.images, measures, _keys(run), store, place)
        missing = gather_probes(run.document["findings"], store, place)
    unprobed = [p for m in measures.probes if m.metric.protocol in missing for p in probe_protocols(m.metric)]
    reasons = {**without_evidence(measures), **gathered.missing, **dict.fromkeys(unprobed, "what the probe found is not in the run's store")}
    counts = Counter(p.row.protocol for p in run.board.rows)
    part = RunPart(
        folder=folder,
        suite=SuiteUsed(
            name=plan.suite.name,
            version=plan.suite.version,
            sha256=plan.content_key(),
            tasks=tuple(t.id for t in plan.suite.tasks),
            limited=plan.limited,
            development=plan.development,
        ),
        base=plan.info.id,
        family=plan.info.family,
        base_sha256=key_of(plan.info.components),
        erasers=tuple(EraserUsed(spec=e["spec"], sha256=e["source_sha256"]) for e in canonical["erasers"]),
        erasures=tuple(ErasureUsed(spec=e["spec"], task=e["task"], sha256=e["weights_sha256"]) for e in canonical["erasures"]),
        metrics=_metrics_used(run, measures),
        judges=dict(canonical["judges"]),
        references=gathered.references,
    )
    lost = [(p, n, reasons[own]) for p, n in counts.items() if (own := plain_protocol(p)) in reasons]
    return part, [WithoutEvidence(folder=folder, protocol=p, rows=n, reason=why) for p, n, why in lost]


def _keys(run: _Run) -> dict[str, Collection[str]]:
    """Group of the store -> image keys, of every model in the records."""
    weights = {(e["spec"], e["task"]): e["weights_sha256"] for e in run.canonical["erasures"]}
    found: dict[str, set[str]] = {}
    for r in run.records:
        group = weights.get((f"{r.eraser}:{r.preset}", r.task), "foreign")
        if r.eraser == BASE:
            group = BASE
        elif r.eraser.startswith(FLOOR):
            group = f"floor-{key_of(run.plan.suite.sampler)}"
        if r.image:
            found.setdefault(group, set()).add(r.image)
    return dict(found)


def _metrics_used(run: _Run, measures: Measures) -> tuple[MetricUsed, ...]:
    """Every metric with the hash of its source when it was run, which is today's."""
    other = [protocol for protocol, sha256 in metric_sources(measures).items() if run.metrics.get(protocol) != sha256]
    if other:
        raise UserInputError(f"{run.folder}: the source of {len(other)} metric(s) was another when it ran: {', '.join(other[:3])}", AGAIN)
    return tuple(MetricUsed(protocol=protocol, sha256=sha256) for protocol, sha256 in run.metrics.items())
