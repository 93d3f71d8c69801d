"""Where a submission says that its numbers come from: a base, a line-up and weights that belong to its rows and to its images.

An image's key is a hash of base, weights, prompt, seed, sampler and library versions. Where the base is installed here and the versions are the
same, the keys in the records must be those of the weights that the rows name: records of another method do not pass for this one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from conceptbench.core.documents import Problem
from conceptbench.core.errors import ConceptBenchError
from conceptbench.core.files import key_of
from conceptbench.core.registry import BASES
from conceptbench.engine.images import BASE, library_versions
from conceptbench.engine.plan import Plan
from conceptbench.engine.records import Record, read_records
from conceptbench.leaderboard.board import Placed
from conceptbench.leaderboard.evidence import RECORDS, by_model
from conceptbench.leaderboard.manifest import NAME, Manifest, RunPart
from conceptbench.models.families import load_base
from conceptbench.models.info import BaseInfo

PRECISIONS = ("fp32", "bf16", "fp16", "fp32-compiled", "bf16-compiled", "fp16-compiled")
Models = Mapping[tuple[str, str], Mapping[tuple[str, str, int], Record]]


def line_up_problems(folder: Path, manifest: Manifest, rows: Sequence[Placed]) -> Iterator[Problem]:
    """Rows with weights or a source of which the manifest knows nothing: they would be compared with nothing.

    Args:
        folder: of the submission.
        manifest: its manifest.
        rows: of its board.
    """
    sources = {(p.suite.name, e.spec): e.sha256 for p in manifest.runs for e in p.erasers}
    weights = {(p.suite.name, e.task, e.spec) for p in manifest.runs for e in p.erasures}
    for placed in rows:
        row, spec = placed.row, f"{placed.row.eraser}:{placed.row.preset}"
        if row.plugin_sha256 and (row.suite, spec) not in sources:
            yield placed.problem(f"it is of eraser {spec}, which is in no line-up of {folder / NAME}: its plugin_sha256 cannot be compared")
        elif row.erasure_sha256 and (row.suite, row.task, spec) not in weights:
            yield placed.problem(f"erasure_sha256 is {row.erasure_sha256}, and {folder / NAME} has no erasure of task {row.task} by {spec}")


def origin_problems(folder: Path, part: RunPart, plan: Plan, environment: str) -> tuple[list[Problem], list[str]]:
    """What is wrong with the base, the models and the image keys of a run, and notes on what was not compared.

    Args:
        folder: of the submission.
        part: the run.
        plan: its suite and images as they are installed here.
        environment: the versions that its rows name.
    """
    records = by_model(list(read_records(folder / part.folder / RECORDS)))
    problems = [Problem(folder / part.folder / RECORDS, None, text) for text in _gaps(part, records)]
    info = installed_base(part.base)
    if info is None:
        return problems, [f"base {part.base} and the keys of images were not compared: it is not one that is installed here"]
    here = key_of(info.components)
    if here != part.base_sha256:
        text = f"run {part.folder}: base {part.base} has sha256 {part.base_sha256}, and the installed one {here}"
        return [*problems, Problem(folder / NAME, None, text)], []
    versions = library_versions()
    if not all(f"{name} {version}." in environment for name, version in versions.items()):
        return problems, [f"keys of images were not compared: they are of other versions than {', '.join(f'{n} {v}' for n, v in versions.items())}"]
    return problems + [Problem(folder / part.folder / RECORDS, None, text) for text in _foreign_keys(part, plan, info, records)], []


def installed_base(name: str) -> BaseInfo | None:
    """A registered base as it is here; None for a folder or a hub id, and where its weights are not here."""
    if name not in BASES.names():
        return None
    try:
        return load_base(name).info
    except ConceptBenchError:
        return None


def _gaps(part: RunPart, records: Mapping[str, Models]) -> Iterator[str]:
    """Models that are on some tasks of a run only: a task that went badly is not left out."""
    declared = [tuple(e.spec.split(":", 1)) for e in part.erasers]
    for eraser, preset in dict.fromkeys([*declared, *(m for own in records.values() for m in own)]):
        missing = [t for t in part.suite.tasks if (eraser, preset) not in records.get(t, {})]
        if missing:
            yield f"{eraser}{':' if preset else ''}{preset} has no records of task {', '.join(missing)}, which is in this run: all of a run or none"


def _foreign_keys(part: RunPart, plan: Plan, info: BaseInfo, records: Mapping[str, Models]) -> Iterator[str]:
    weights = {(e.task, e.spec): e.sha256 for e in part.erasures}
    for task, models in records.items():
        for pair, own in models.items():
            model = BASE if pair == (BASE, "") else weights.get((task, ":".join(pair)))
            if model is None or task not in plan.images:  # images made elsewhere, another sampler, an erasure that failed
                continue
            pairs = [(s, own[p].image) for s in plan.images[task] if (p := (s.concept, s.prompt_id, s.number)) in own]
            # the manifest does not say the precision of sampling, which is part of a key
            wrong = min(([i for s, i in pairs if s.key(replace(info, precision=p), model) != i] for p in PRECISIONS), key=len)
            if wrong:
                name = ":".join(filter(None, pair))
                yield f"task {task}, {name}: {len(wrong)} of {len(pairs)} image keys, e.g. {wrong[0] or 'an empty one'}, are not those of weights {model}"
