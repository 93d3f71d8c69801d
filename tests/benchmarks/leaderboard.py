"""Leaderboards of a hundred thousand rows: export, the check of the schema, and how many rows a second are derived again.

The runs are written here: the records of many models with random values, and the rows that the harness makes of them. The large one has
one prompt a concept and one model's rows under many names; its export and the check of its rows each are a process of their own, whose
wall time goes from its start to its end and whose memory is its largest resident set. The other has all prompts of the suite; its
submission is checked as ``conceptbench leaderboard check`` does, and the rate is that of the whole check.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.measuring import Row, Settings
    from conceptbench.core.results import ResultRow
    from conceptbench.engine.plan import Plan
    from conceptbench.engine.records import Record

SECONDS, GIB, RATE = 60.0, 2.0, 30.0
MODELS = 8
STATUSES = ("limited",)


def run(settings: Settings) -> list[Row]:
    """Wall seconds and memory at many rows, and the rate of derivation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write_run(folder / "large", settings, 1, 1, rows=settings.prompts)
        measured = {job: in_a_process(job, folder / "large", folder / "large-submission", settings.threads) for job in ("export", "schema")}
        write_run(folder / "full", settings, settings.limit, MODELS)
        in_a_process("export", folder / "full", folder / "submission", settings.threads)
        checked = in_a_process("check", folder / "full", folder / "submission", settings.threads)
    return rows(measured, checked, count)


def rows(measured: dict[str, dict[str, float]], checked: dict[str, float], count: int) -> list[Row]:
    """The table's rows from what each process said.

    Raises:
        RuntimeError: a process saw other rows than were written, or a check found a problem.
    """
    from benchmarks.measuring import Row

    wrong = [f"{job}: {m['rows']:.0f} rows, {m['problems']:.0f} problems" for job, m in measured.items() if m["rows"] != count or m["problems"]]
    if wrong or checked["problems"]:
        raise RuntimeError(f"of {count} rows, {'; '.join(wrong)}; in the check {checked['problems']:.0f} problems")
    how = f"{count:,} rows; one process from start to end"
    found = []
    for job, m in measured.items():
        found.append(Row(f"leaderboard: {job}", f"{m['wall']:.1f} s", "", m["wall"], "s", ("at most", SECONDS), how=how))
        found.append(Row(f"leaderboard: {job}, memory", f"{m['gib']:.2f} GiB", "", m["gib"], "GiB", ("at most", GIB), how=how))
    rate = checked["derived"] / checked["seconds"]
    told = f"{checked['derived']:.0f} rows derived again in {checked['seconds']:.1f} s"
    return [*found, Row("leaderboard: derived again", f"{rate:.0f} rows/s", f"{RATE:.0f} rows/s", rate / RATE, "x", ("at least", 1.0), how=told)]


def write_run(folder: Path, settings: Settings, limit: int | None, models: int, rows: int = 0) -> int:
    """The folder of a run with random records; gives the number of its rows.

    Args:
        folder: where to.
        settings: base and suite.
        limit: prompts a concept; None for all.
        models: beside the base.
        rows: if set, the last model's rows are written again under other names until there are so many.
    """
    from benchmarks.measuring import planned
    from conceptbench.engine.measures import load_measures, metric_sources
    from conceptbench.engine.provenance import write_results
    from conceptbench.engine.run import Outcome
    from conceptbench.engine.store import Store

    _, plan = planned(settings, limit=limit)
    measures = load_measures(plan.suite)
    judges = measures.judges
    records = [r for i in range(models + 1) for r in records_of(plan, judges, "base" if i == 0 else f"m{i}", random.Random(i))]
    made = rows_of(plan, judges, records, folder / "evidence")
    own_rows, own_records = [r for r in made if r.eraser == f"m{models}"], [r for r in records if r.eraser == f"m{models}"]
    extra = max(0, rows - len(made))
    for n in range(-(-extra // len(own_rows))):
        name = f"m{models + 1 + n}"
        made += [r.model_copy(update={"eraser": name}) for r in own_rows]
        records += [replace(r, eraser=name) for r in own_records]
    outcome = Outcome(plan, made[: rows or None], records, metrics=metric_sources(measures))
    write_results(outcome, judges, folder, Store(folder / "store"), [])
    return len(outcome.rows)


def records_of(plan: Plan, judges: dict[str, Any], eraser: str, rng: random.Random) -> list[Record]:
    """Random values of every metric of images that applies."""
    from conceptbench.core.manifests import task_concepts
    from conceptbench.engine.groups import row_roles
    from conceptbench.engine.records import Record
    from conceptbench.leaderboard.evidence import measures_of

    measures = measures_of(plan.suite, {n: j.card for n, j in judges.items()})
    found = []
    for task in plan.suite.tasks:
        concepts, roles = task_concepts(plan.suite, task), row_roles(task)
        for s in plan.images[task.id]:
            asked = [m.metric for m in measures.images if m.asks_about(concepts[s.concept], s.role) and not (eraser == "base" and m.metric.needs == "pairs")]
            values = {m.protocol: float(rng.random() < 0.7) if m.is_rate else rng.random() for m in asked}
            preset = "" if eraser == "base" else "x"
            own = (s.concept, eraser, preset, s.prompt_id, s.number, s.seed, s.condition.text)
            found.append(Record(task.id, roles[s.concept], *own, "0" * 64, values))
    return found


def rows_of(plan: Plan, judges: dict[str, Any], records: list[Record], folder: Path) -> list[ResultRow]:
    """The rows that the harness makes of records."""
    from conceptbench.core.files import key_of
    from conceptbench.engine.records import write_records
    from conceptbench.leaderboard.deriving import derive
    from conceptbench.leaderboard.manifest import RunPart, SuiteUsed

    write_records(folder / "records.csv", records)
    suite = SuiteUsed(name=plan.suite.name, version=plan.suite.version, sha256=plan.content_key(), tasks=tuple(t.id for t in plan.suite.tasks))
    part = RunPart(
        folder="x",
        suite=suite,
        base=plan.info.id,
        family=plan.info.family,
        base_sha256=key_of(plan.info.components),
        erasers=(),
        erasures=(),
        metrics=(),
        judges={n: j.card.document() for n, j in judges.items()},
    )
    derived = derive(plan, part, folder, {})
    if derived.problems:
        raise RuntimeError(derived.problems[0])
    return derived.rows


def in_a_process(job: str, run_folder: Path, submission: Path, threads: int) -> dict[str, float]:
    """Does a job in a new process; its own figures, and its wall seconds.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, job, run_folder, submission], env=environment, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{job} failed:\n{done.stderr[-2000:]}")
    return {"wall": wall, **json.loads(done.stdout)}


def job(name: str, run_folder: str, submission: str) -> dict[str, float]:
    """What a process does. Rows, problems, rows derived again, seconds without imports, GiB."""
    from conceptbench.leaderboard.board import board_problems, read_board
    from conceptbench.leaderboard.checking import check
    from conceptbench.leaderboard.exporting import export

    start = time.perf_counter()
    path = Path(submission)
    derived, problems = 0, []
    if name == "export":
        count = export([Path(run_folder)], path).manifest.rows
    elif name == "schema":
        board = read_board(path / "leaderboard.csv")
        count, problems = len(board.rows), board_problems(board, STATUSES)
    else:
        found = check(path, STATUSES)
        count, derived, problems = found.rows, found.derived, found.problems
    seconds = time.perf_counter() - start
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.plan import peak_gib

    return {"rows": count, "problems": len(problems), "derived": derived, "seconds": seconds, "gib": peak_gib()}


if __name__ == "__main__":
    del sys.path[0]  # this folder's names are not to be found instead of anybody else's
    sys.stdout.write(json.dumps(job(*sys.argv[1:])) + "\n")
