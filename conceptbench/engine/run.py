"""A run: a suite carried out for a line-up of erasers, in one folder. To resume is to run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conceptbench.core.errors import FATAL, ConceptBenchError
from conceptbench.core.files import key_of
from conceptbench.core.manifests import task_concepts
from conceptbench.core.results import ResultRow
from conceptbench.core.schemas import Sampler, Task
from conceptbench.core.whole_metric import Edited
from conceptbench.engine.erasing import erase, stored_erasure
from conceptbench.engine.generate import Generation
from conceptbench.engine.images import BASE, FLOOR, ImageSpec
from conceptbench.engine.judging import Hearing
from conceptbench.engine.lineup import CHECKPOINT
from conceptbench.engine.measures import load_measures, metric_sources
from conceptbench.engine.plan import EraseUnit, Plan
from conceptbench.engine.probing import Probing
from conceptbench.engine.progress import Work
from conceptbench.engine.provenance import environment, hardware
from conceptbench.engine.records import Record
from conceptbench.engine.references import References
from conceptbench.engine.scoring import TaskScores
from conceptbench.engine.seen import Model, TextBook
from conceptbench.engine.session import Session
from conceptbench.engine.splits import split_rows
from conceptbench.engine.store import Store
from conceptbench.engine.trained import TrainedJudges
from conceptbench.engine.watching import watcher_of
from conceptbench.models.base import Base
from conceptbench.models.checkpoints import notes_of
from conceptbench.models.erasure import Erasure, as_arrays, values_by_name

COSTS = ("seconds", "peak_memory_mb", "network_evaluations", "size_bytes")


@dataclass
class Outcome:
    """What a run gives.

    Attributes:
        plan: what was asked.
        rows: the result rows: for each task the base first, then the line-up; none from one shard of several.
        records: one an image and model, in the same order.
        work: what was really done.
        failures: units that failed, with the reason.
        erasures: hash of the weights by (eraser spec, task).
        curves: training curves by (eraser spec, task).
        metrics: hash of the source by protocol.
        findings: of probes: task, concept, model (hash of the weights, or base), probe and key in the store.
    """

    plan: Plan
    rows: list[ResultRow] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    failures: list[dict[str, str]] = field(default_factory=list)
    erasures: dict[tuple[str, str], str] = field(default_factory=dict)
    curves: dict[tuple[str, str], list[dict[str, float | None]]] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)


class Runner:
    """Carries out a plan on one machine.

    Args:
        base: the loaded model of the plan.
        plan: what to do.
        store: where units go.
        session: reporter, journal, stop, shard, batch size.
        collect: make nothing; score what the store has.
    """

    def __init__(self, base: Base, plan: Plan, store: Store, *, session: Session | None = None, collect: bool = False) -> None:
        self.base, self.plan, self.store, self.collect = base, plan, store, collect
        self.session = session or Session()
        self.outcome = Outcome(plan)
        self.measures = load_measures(plan.suite, TrainedJudges(base, plan.suite, store, self.session, collect=collect).judge)
        self.book = TextBook(self.measures.judges)
        self.references = References(self.measures.judges, store)
        self._check()
        self.probing = Probing(base, plan, store, self.session, self.measures.probes, self.outcome.work, collect=collect)
        self.outcome.findings, self.outcome.metrics = self.probing.findings, metric_sources(self.measures)

    def run(self) -> Outcome:
        """Erases, draws, judges and scores whatever is not in the store; a unit that fails is noted and the rest goes on.

        With a shard of several, only that part is made, and nothing is scored: the run without a shard does that.
        """
        for unit in self.plan.erasures:  # a file that does not fit is found before hours of drawing
            if unit.entry.preset == CHECKPOINT and not self.collect and (found := self._erasure(unit)) is not None:
                found.restoring(unit.task.restored, unit.task.restore_with)
        images = self._images(self.plan.distinct_base_images(), BASE, BASE)
        if self.session.shard.count > 1:
            for task in self.plan.suite.tasks:
                self.probing.of(task, BASE, f"{BASE} [{task.id}]", BASE)
            for unit in self.session.shard.rotated(self.plan.erasures):
                self._erased(unit)
            return self.outcome
        units = {(u.entry.spec, u.task.id): u for u in self.plan.erasures}
        every = []
        for task in self.plan.suite.tasks:
            scores = self.task_scores(task, list(self.plan.images[task.id]))
            self.score(scores, self._base_model(images, task), f"{BASE} [{task.id}]", is_base=True)
            if self.plan.suite.floor is not None:
                self.score(scores, self._floor(scores.specs), f"floor [{task.id}]")
            for entry in self.plan.entries:
                unit = units[entry.spec, task.id]
                self.score(scores, self._erased(unit) or self._without(unit), unit.name)
            every.append(scores)
        self.outcome.rows += split_rows(every, self.plan.suite, {(f["eraser"], f["task"]): f["reason"] for f in self.outcome.failures})
        self.outcome.failures += self.probing.failures
        return self.outcome

    def task_scores(self, task: Task, specs: list[ImageSpec]) -> TaskScores:
        """An empty score sheet of a task."""
        return TaskScores(self.plan.suite, task, specs, self.measures, self.common(), self.book, self.references)

    def _check(self) -> None:
        """Finds before anything is made what would fail a run at its end."""
        suite = self.plan.suite
        for measure in self.measures.sets:
            if measure.metric.beside not in ("base", "others"):
                self.references.check(measure.metric.beside, measure.metric.reference_size)
        if not self.collect:
            watcher_of(suite, task_concepts(suite, suite.tasks[0])[suite.tasks[0].targets[0]])

    def base_model(self, task: Task) -> Model:
        """The unmodified model with all its images of a task drawn and judged."""
        return self._base_model(self._images(list(self.plan.images[task.id]), BASE, BASE), task)

    def _base_model(self, images: Hearing, task: Task) -> Model:
        probed = self.probing.of(task, BASE, f"{BASE} [{task.id}]", BASE)
        return Model(BASE, "", lambda s: s.key(self.plan.info, BASE), images.said, {"train_seed": None}, whole=False, probed=probed)

    def _floor(self, specs: Sequence[ImageSpec]) -> Model:
        """The base under another sampler: how far two samplers alone are apart."""
        sampler = self.plan.suite.floor
        assert sampler is not None
        suite = self.plan.suite
        # a row's own guidance and size stay: only the sampler may differ
        partners = {id(s): replace(s, sampler=_as_row(sampler, s.sampler, suite.sampler)) for s in specs}
        own = {id(other): s for s, other in zip(specs, partners.values(), strict=True)}
        group = f"floor-{key_of(suite.sampler)}"
        images = self._images(list(partners.values()), BASE, f"{BASE} under another sampler", group=group, partner=lambda s: own[id(s)])
        name = f"{FLOOR}-{sampler.scheduler}-{sampler.steps}-{sampler.guidance:g}"
        return Model(name, "", lambda s: partners[id(s)].key(self.plan.info, BASE), images.said, {"train_seed": None}, whole=False)

    def score(self, scores: TaskScores, model: Model, unit: str, *, is_base: bool = False, paired: bool = True) -> None:
        """Adds a model's rows and records of a task to the outcome; the base's first."""
        with self.session.journal.stage("score", unit), self.outcome.work.timed("score"):
            rows, records = scores.score(model, is_base=is_base, paired=paired)
        failed = next((f["reason"] for f in self.outcome.failures if f["unit"] == unit), None)
        if failed is not None:
            rows = [r.model_copy(update={"status": "failed", "reason": failed, "n_failed": r.n_planned}) for r in rows]
        self.outcome.rows += rows
        self.outcome.records += records

    def _erased(self, unit: EraseUnit) -> Model | None:
        """The unit's erasure with its images drawn and judged; None if it failed, or is not there and nothing is to be made."""
        spec, specs, work = unit.entry.spec, list(self.plan.images[unit.task.id]), self.outcome.work
        try:
            with work.timed("erase"):
                erasure = self._erasure(unit)
            if erasure is None:
                return None
            for note in notes_of(erasure):
                work.note(f"{unit.entry.label}: {note}")
            erasure = erasure.restoring(unit.task.restored, unit.task.restore_with)
            weights = erasure.weights_hash()
            before = values_by_name(self.base, erasure)
            self.probing.prepare(unit.task, weights, unit.name, spec)
            with erasure.applied(self.base):
                change = self._edited(erasure, before)
                heard = self._images(specs, weights, unit.name)
                probed = self.probing.of(unit.task, weights, unit.name, spec)
        except FATAL:
            raise
        except Exception as error:
            self.session.reporter.abandon()
            reason = str(error) if isinstance(error, ConceptBenchError) else repr(error)
            self.outcome.failures.append({"eraser": spec, "task": unit.task.id, "reason": reason, "unit": unit.name})
            return None
        self.outcome.erasures[spec, unit.task.id] = weights
        self.outcome.curves[spec, unit.task.id] = erasure.meta.get("curve", [])
        provenance = self._provenance(unit, erasure, weights)
        return Model(unit.entry.label, unit.entry.preset, lambda s: s.key(self.plan.info, weights), heard.said, provenance, edited=change, probed=probed)

    def _erasure(self, unit: EraseUnit) -> Erasure | None:
        if self.collect:
            return stored_erasure(self.store, unit.key)
        erasure, _ = erase(self.base, unit, self.plan.suite, self.store, train_seed=self.plan.train_seed, session=self.session)
        self.outcome.work.erasures = len(self.session.erased)
        return erasure

    def _edited(self, erasure: Erasure, before: Mapping[str, Any]) -> Edited | None:
        if not self.measures.erasures:
            return None
        names = {f"{c.component}.{n}" for c in erasure.changes for n in c.names()}
        after = {n: v for n, v in values_by_name(self.base, erasure).items() if n in names}
        return Edited(as_arrays(before), as_arrays(after), {k: erasure.meta.get(k) for k in COSTS}, erasure.meta.get("curve", ()))

    def _images(
        self, specs: Sequence[ImageSpec], model: str, what: str, *, group: str = "", partner: Callable[[ImageSpec], ImageSpec] = lambda s: s
    ) -> Hearing:
        """Draws what is missing, and gives what the judges say of it."""
        work = self.outcome.work
        hearing = Hearing(self.measures.judges, self.plan.info, group or model, self.store, pairs=self.session.shard.count == 1, partner=partner)
        if not self.collect:
            work.images += Generation(self.base, specs, model, self.store, self.session, what=what, hearing=hearing, work=work).run()
            for name, looked in hearing.looked.items():
                work.judged[name] = work.judged.get(name, 0) + looked
        return hearing

    def _without(self, unit: EraseUnit) -> Model:
        """A model of which nothing is known: its rows have no values, because what failed or is missing is counted, never dropped."""
        extra = {"train_seed": self.plan.train_seed, "plugin_sha256": unit.entry.source_sha256}
        return Model(unit.entry.label, unit.entry.preset, lambda _: "", {}, extra)

    def common(self) -> dict[str, Any]:
        """Row fields of all models of this run."""
        return {
            "base": self.plan.info.id,
            "status": "development" if self.plan.development else "limited" if self.plan.limited else "ok",
            "suite_sha256": self.plan.content_key(),
            "base_sha256": key_of(self.plan.info.components),
            "environment": environment(),
            "hardware": hardware(self.base.device),
        }

    def _provenance(self, unit: EraseUnit, erasure: Erasure, weights: str) -> dict[str, Any]:
        meta = erasure.meta
        seconds, memory = meta["seconds"], meta["peak_memory_mb"]
        return {
            "train_seed": meta["train_seed"],
            "erasure_sha256": weights,
            "plugin_sha256": unit.entry.source_sha256,
            "erase_seconds": None if seconds is None else round(seconds, 3),
            "peak_memory_mb": None if memory is None else round(memory, 1),
            "network_evaluations": meta["network_evaluations"],
            "size_bytes": meta["size_bytes"],
        }


def _as_row(sampler: Sampler, row: Sampler, suite: Sampler) -> Sampler:
    """The floor's sampler with what a row's own differs in from the suite's."""
    return sampler.model_copy(update={name: getattr(row, name) for name in ("guidance", "size") if getattr(row, name) != getattr(suite, name)})
