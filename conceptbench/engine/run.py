"""A run: a suite carried out for a line-up of erasers, in one folder. To resume is to run again."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from conceptbench import __version__
from conceptbench.core.errors import BaseChangedError, ConceptBenchError, StoreError
from conceptbench.core.files import canonical_json, key_of, pretty_json, sha256_bytes, write_text
from conceptbench.core.metric import Judge
from conceptbench.core.results import TIMED_FIELDS, ResultRow, to_csv
from conceptbench.engine.erasing import erase
from conceptbench.engine.generate import generate
from conceptbench.engine.judging import judged
from conceptbench.engine.lineup import Entry
from conceptbench.engine.plan import BASE, BATCH, EraseUnit, ImageSpec, Plan
from conceptbench.engine.progress import Reporter, Silent, Work
from conceptbench.engine.scoring import Model, Said, load_measures, rows_of
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.erasure import Erasure


@dataclass
class Outcome:
    """What a run gives.

    Attributes:
        plan: what was asked.
        rows: the result rows: for each task the base first, then the line-up.
        work: what was really done.
        failures: units that failed, with the reason.
        erasures: hash of the weights by (eraser spec, task).
        curves: training curves by (eraser spec, task).
    """

    plan: Plan
    rows: list[ResultRow] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    failures: list[dict[str, str]] = field(default_factory=list)
    erasures: dict[tuple[str, str], str] = field(default_factory=dict)
    curves: dict[tuple[str, str], list[dict[str, float | None]]] = field(default_factory=dict)


def environment() -> str:
    """The versions that numbers depend on, in one cell."""
    packages = ("torch", "diffusers", "transformers", "open_clip_torch", "torchmetrics", "numpy")
    return "; ".join([f"conceptbench {__version__}", f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)])


def hardware(device: torch.device) -> str:
    """Where it ran: the accelerator's name, or the processor's architecture and the thread count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} cpu, {torch.get_num_threads()} threads"


class Runner:
    """Carries out a plan on one machine.

    Args:
        base: the loaded model of the plan.
        plan: what to do.
        store: where units go.
        batch: images a forward; changes no byte on a CPU.
        reporter: hears of progress.
    """

    def __init__(self, base: Base, plan: Plan, store: Store, *, batch: int = BATCH, reporter: Reporter | None = None) -> None:
        self.base, self.plan, self.store, self.batch = base, plan, store, batch
        self.reporter = reporter or Silent()
        self.measures, self.judges = load_measures(plan.suite)
        self.outcome = Outcome(plan)

    def run(self) -> Outcome:
        """Erases, draws, judges and scores whatever is not in the store; a unit that fails is noted and the rest goes on."""
        work = self.outcome.work
        with work.timed("generate"):
            work.images += generate(self.base, self.plan.distinct_base_images(), BASE, self.store, batch=self.batch, reporter=self.reporter, what="draw base")
        said = self._judge(self.plan.distinct_base_images(), BASE)
        common = self._common()
        reference = Model(BASE, "", lambda s: s.key(self.plan.info, BASE), said, {"train_seed": None})
        units = {(u.entry.spec, u.task.id): u for u in self.plan.erasures}
        for task in self.plan.suite.tasks:
            specs = self.plan.images[task.id]
            self.outcome.rows += rows_of(self.plan.suite, task, specs, self.measures, reference, reference, common)
            for entry in self.plan.entries:
                model = self._erased(units[entry.spec, task.id], specs)
                if model is None:
                    self.outcome.rows += self._failed_rows(units[entry.spec, task.id], reference, common)
                else:
                    self.outcome.rows += rows_of(self.plan.suite, task, specs, self.measures, model, reference, common)
        return self.outcome

    def _erased(self, unit: EraseUnit, specs: Sequence[ImageSpec]) -> Model | None:
        work, spec = self.outcome.work, unit.entry.spec
        try:
            with work.timed("erase"):
                erasure, made = erase(self.base, unit, self.plan.suite, self.store, train_seed=self.plan.train_seed, reporter=self.reporter)
            work.erasures += made
            weights = erasure.weights_hash()
            with erasure.applied(self.base):
                with work.timed("generate"):
                    what = f"draw {unit.entry.label} [{unit.task.id}]"
                    work.images += generate(self.base, specs, weights, self.store, batch=self.batch, reporter=self.reporter, what=what)
                said = self._judge(specs, weights)
        except (BaseChangedError, OSError):
            raise  # the base is not the base any more, or nothing can be written
        except Exception as error:
            reason = str(error) if isinstance(error, ConceptBenchError) else repr(error)
            self.outcome.failures.append({"eraser": spec, "task": unit.task.id, "reason": reason})
            return None
        self.outcome.erasures[spec, unit.task.id] = weights
        self.outcome.curves[spec, unit.task.id] = erasure.meta.get("curve", [])
        return Model(unit.entry.label, unit.entry.preset, lambda s: s.key(self.plan.info, weights), said, self._provenance(unit.entry, erasure, weights))

    def _failed_rows(self, unit: EraseUnit, reference: Model, common: dict[str, Any]) -> list[ResultRow]:
        """Rows without values: what failed is counted, never dropped."""
        silent: dict[str, Said] = {name: {} for name in self.judges}
        failed = Model(
            unit.entry.label, unit.entry.preset, lambda _: "", silent, {"train_seed": self.plan.train_seed, "plugin_sha256": unit.entry.source_sha256}
        )
        rows = rows_of(self.plan.suite, unit.task, self.plan.images[unit.task.id], self.measures, failed, reference, {**common, "status": "failed"})
        return [r.model_copy(update={"status": "failed", "reason": self.outcome.failures[-1]["reason"]}) for r in rows]

    def _judge(self, specs: Sequence[ImageSpec], model: str) -> dict[str, Said]:
        said: dict[str, Said] = {}
        with self.outcome.work.timed("judge"):
            self._mend(specs, model)
            for name, judge in self.judges.items():
                said[name], looked = judged(judge, specs, self.plan.info, model, self.store)
                self.outcome.work.judged[name] = self.outcome.work.judged.get(name, 0) + looked
        return said

    def _mend(self, specs: Sequence[ImageSpec], model: str) -> None:
        """Makes damaged images again: a file of the right name with other content does not count as done."""
        damaged = []
        for spec in specs:
            try:
                self.store.read_image(spec.key(self.plan.info, model))
            except StoreError:
                damaged.append(spec)
        for spec in damaged:
            self.store.image_path(spec.key(self.plan.info, model)).unlink(missing_ok=True)
        if damaged:
            self.outcome.work.images += generate(self.base, damaged, model, self.store, batch=self.batch)

    def _common(self) -> dict[str, Any]:
        return {
            "base": self.plan.info.id,
            "status": "development" if self.plan.development else "limited" if self.plan.limited else "ok",
            "suite_sha256": self.plan.content_key(),
            "base_sha256": key_of(self.plan.info.components),
            "environment": environment(),
            "hardware": hardware(self.base.device),
        }

    def _provenance(self, entry: Entry, erasure: Erasure, weights: str) -> dict[str, Any]:
        meta = erasure.meta
        return {
            "train_seed": meta["train_seed"],
            "erasure_sha256": weights,
            "plugin_sha256": entry.source_sha256,
            "erase_seconds": round(meta["seconds"], 3),
            "peak_memory_mb": round(meta["peak_memory_mb"], 1),
            "network_evaluations": meta["network_evaluations"],
            "size_bytes": meta["size_bytes"],
        }


def canonical(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """The rows without what a rerun may change (time, memory, machine)."""
    return [{k: v for k, v in row.model_dump(mode="json").items() if k not in TIMED_FIELDS} for row in rows]


def results_document(outcome: Outcome, judges: Mapping[str, Judge], argv: Sequence[str]) -> dict[str, Any]:
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
                "notes": plan.info.notes,
            },
            "erasers": [
                {"spec": e.spec, "config": e.config, "summary": e.eraser.summary, "reference": e.eraser.reference, "source_sha256": e.source_sha256}
                for e in plan.entries
            ],
            "judges": {
                n: {"sha256": j.card.sha256, "source": j.card.source, "licence": j.card.licence, "preprocessing": j.card.preprocessing}
                for n, j in judges.items()
            },
            "erasures": [{"spec": spec, "task": task, "weights_sha256": h} for (spec, task), h in outcome.erasures.items()],
            "limited": plan.limited,
            "development": plan.development,
            "failures": outcome.failures,
        },
        "curves": {f"{spec} [{task}]": curve for (spec, task), curve in outcome.curves.items()},
        "cost": list(
            {
                (r.eraser, r.preset, r.task): {
                    "eraser": f"{r.eraser}:{r.preset}",
                    "task": r.task,
                    "seconds": r.erase_seconds,
                    "peak_memory_mb": r.peak_memory_mb,
                }
                for r in outcome.rows
                if r.erase_seconds is not None
            }.values()
        ),
        "work": {
            "images": outcome.work.images,
            "erasures": outcome.work.erasures,
            "judged": outcome.work.judged,
            "seconds": {k: round(v, 2) for k, v in outcome.work.seconds.items()},
        },
        "environment": environment(),
        "argv": list(argv),
    }


def write_results(outcome: Outcome, judges: Mapping[str, Judge], output: Path, store: Store, argv: Sequence[str] | None = None) -> None:
    """Writes ``leaderboard.csv`` and ``results.json`` into the output folder; the latter remembers where the images are."""
    write_text(output / "leaderboard.csv", to_csv(outcome.rows))
    write_text(
        output / "results.json", pretty_json({**results_document(outcome, judges, sys.argv if argv is None else argv), "store": str(store.root.resolve())})
    )
