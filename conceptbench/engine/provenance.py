"""The documents of a run: ``leaderboard.csv``, ``records.csv`` and ``results.json``, and where they come from."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from conceptbench import __version__
from conceptbench.core.files import canonical_json, pretty_json, sha256_bytes, write_text
from conceptbench.core.results import TIMED_FIELDS, TIMED_UNITS, ResultRow, to_csv
from conceptbench.engine.records import write_records
from conceptbench.engine.store import Store

if TYPE_CHECKING:
    from conceptbench.engine.run import Outcome


def environment() -> str:
    """The versions that numbers depend on, in one cell."""
    packages = ("torch", "diffusers", "transformers", "open_clip_torch", "torchmetrics", "numpy")
    return "; ".join([f"conceptbench {__version__}", f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)])


def hardware(device: torch.device) -> str:
    """Where it ran: the accelerator's name, or the processor's architecture and the thread count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} cpu, {torch.get_num_threads()} threads"


def canonical(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """The rows without what a rerun may change: fields and metrics of time, memory and machine, and the text of a failure."""
    kept = [row.model_copy(update={"reason": ""}) if row.status == "failed" else row for row in rows if row.unit not in TIMED_UNITS]
    return [{k: v for k, v in row.model_dump(mode="json").items() if k not in TIMED_FIELDS} for row in kept]


def results_document(outcome: Outcome, judges: Mapping[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """The content of ``results.json``: rows, and all that is needed to understand and repeat them."""
    plan = outcome.plan
    rows = canonical(outcome.rows)
    return {
        "format": "conceptbench-results-1",
        "canonical": {
            "sha256": sha256_bytes(canonical_json(rows).encode()),
            "rows": rows,
            "suite": plan.suite,
            "base": {
                "id": plan.info.id,
                "family": plan.info.family,
                "revision": plan.info.revision,
                "components": plan.info.components,
                "precision": plan.info.precision,
                "notes": plan.info.notes,
            },
            "erasers": [
                {
                    "spec": e.spec,
                    "config": e.config,
                    "by_kind": e.by_kind,
                    "summary": e.eraser.summary,
                    "reference": e.eraser.reference,
                    "source_sha256": e.source_sha256,
                }
                for e in plan.entries
            ],
            "metrics": [{"protocol": protocol, "source_sha256": sha256} for protocol, sha256 in outcome.metrics.items()],
            "judges": {n: j.card.document() for n, j in judges.items()},
            "erasures": [{"spec": spec, "task": task, "weights_sha256": h} for (spec, task), h in outcome.erasures.items()],
            "limited": plan.limited,
            "development": plan.development,
            "failures": [{k: f[k] for k in ("eraser", "task")} for f in outcome.failures],
        },
        "failures": outcome.failures,
        "timed": [row for row in outcome.rows if row.unit in TIMED_UNITS],
        "curves": {f"{spec} [{task}]": curve for (spec, task), curve in outcome.curves.items()},
        "findings": outcome.findings,
        "cost": _costs(outcome.rows),
        "work": {
            "images": outcome.work.images,
            "erasures": outcome.work.erasures,
            "judged": outcome.work.judged,
            "seconds": {k: round(v, 2) for k, v in outcome.work.seconds.items()},
            "notes": outcome.work.notes,
        },
        "environment": environment(),
        "argv": list(argv),
    }


def _costs(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """What each erasure took, once."""
    found = {
        (r.eraser, r.preset, r.task): {"eraser": f"{r.eraser}:{r.preset}", "task": r.task, "seconds": r.erase_seconds, "peak_memory_mb": r.peak_memory_mb}
        for r in rows
        if r.erase_seconds is not None
    }
    return list(found.values())


def write_results(outcome: Outcome, judges: Mapping[str, Any], output: Path, store: Store, argv: Sequence[str] | None = None) -> None:
    """Writes a run's tables into the output folder; ``results.json`` remembers where the images are."""
    write_text(output / "leaderboard.csv", to_csv(outcome.rows))
    write_records(output / "records.csv", outcome.records)
    document = results_document(outcome, judges, sys.argv if argv is None else argv)
    write_text(output / "results.json", pretty_json({**document, "store": str(store.root.resolve())}))
