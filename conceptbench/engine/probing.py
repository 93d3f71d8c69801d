"""Carries out probes: measures a model with its weights at hand, once for each concept, and keeps what was found."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conceptbench.core.errors import FATAL, ConceptBenchError, PluginError, UnitFailedError
from conceptbench.core.files import key_of
from conceptbench.core.manifests import task_concepts
from conceptbench.core.protocols import every_metric
from conceptbench.core.registry import METRICS, source_hash
from conceptbench.core.schemas import Concept, Role, Suite, Task
from conceptbench.engine.erasing import training_threads
from conceptbench.engine.generate import reference_images
from conceptbench.engine.images import BASE, library_versions
from conceptbench.engine.lineup import shared_source_hash
from conceptbench.engine.measures import NO_JUDGE, Measure, options_of
from conceptbench.engine.plan import Plan
from conceptbench.engine.progress import Work
from conceptbench.engine.session import Session
from conceptbench.engine.state import load_state, save_state
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.probe import Probe, Probed, ProbeRequest

Found = dict[tuple[str, str], Probed]
"""(probe's protocol, concept) -> what it found."""
VALUES, ARRAYS = "value/", "array/"


def path_of(store: Store, key: str) -> Path:
    """Where a finding is, or will be."""
    return store.root / "probes" / f"{key}.safetensors"


def read_finding(store: Store, key: str) -> Probed | None:
    """What a probe found, or None if it is not there or damaged."""
    found = load_state(path_of(store, key))
    if found is None:
        return None
    tensors, header = found
    arrays = {n: t.numpy() for n, t in tensors.items()}
    return Probed(
        {n.removeprefix(VALUES): a for n, a in arrays.items() if n.startswith(VALUES)},
        header["clusters"],
        {n.removeprefix(ARRAYS): a for n, a in arrays.items() if n.startswith(ARRAYS)},
    )


def probes_of(suite: Suite) -> list[Measure[Probe]]:
    """The probes of a suite; they ask no judge."""
    kinds = [(spec, METRICS.load(spec.metric)) for spec in every_metric(suite.metrics)]
    return [Measure(kind(options_of(kind, spec), NO_JUDGE), "", spec.concepts) for spec, kind in kinds if issubclass(kind, Probe)]


class Probing:
    """The probes of a plan.

    Args:
        base: the model; an erasure is applied to it by the caller.
        plan: suite, tasks and images.
        store: where findings go.
        session: reporter, journal, stop, shard.
        probes: the suite's.
        work: counts what was done.
        collect: make nothing; give what the store has.

    Attributes:
        findings: what was found or read: task, concept, model, probe (its protocol) and key in the store.
        failures: probes that raised, as the run's outcome lists failures; the other probes and the images go on.
    """

    def __init__(self, base: Base, plan: Plan, store: Store, session: Session, probes: Sequence[Measure[Probe]], work: Work, *, collect: bool = False) -> None:
        self.base, self.plan, self.store, self.session, self.probes = base, plan, store, session, probes
        self.work, self.collect = work, collect
        self.findings: list[dict[str, str]] = []
        self.failures: list[dict[str, str]] = []
        self._prepared: dict[tuple[str, str, str], dict[str, NDArray[Any]]] = {}
        self._asked: dict[str, list[tuple[Probe, ProbeRequest]]] = {}

    def of(self, task: Task, model: str, unit: str, eraser: str) -> Found:
        """What the probes find in the model as it is now.

        Args:
            task: its concepts are probed.
            model: hash of the applied erasure, or ``base``.
            unit: what people and journals call it.
            eraser: its spec, for failures.
        """
        if model == BASE:
            self.prepare(task, model, unit, eraser)
        found: Found = {}
        for probe, request in self.asked(task):
            key = self.key(probe, request, model)
            probed = read_finding(self.store, key)
            if probed is None and not self.collect and self._mine(key):
                with self._guarded(probe, request, task, unit, eraser):
                    probed = self._make(probe, request, key, unit, task)
            if probed is not None:
                found[probe.protocol, request.concept.name] = probed
                self.findings.append({"task": task.id, "concept": request.concept.name, "model": model, "probe": probe.protocol, "key": key})
        return found

    def prepare(self, task: Task, model: str, unit: str, eraser: str) -> None:
        """Asks the unmodified base for what probes will need of it; before an erasure of that hash is applied."""
        for probe, request in self.asked(task):
            place = probe.protocol, task.id, request.concept.name
            key = self.key(probe, request, model)
            if place not in self._prepared and not self.collect and self._mine(key) and read_finding(self.store, key) is None:
                self.session.stop.check()
                with self._guarded(probe, request, task, unit, eraser), self.work.timed("probe"), training_threads(self.base):
                    self._prepared[place] = probe.prepare(self.base, request)

    @contextmanager
    def _guarded(self, probe: Probe, request: ProbeRequest, task: Task, unit: str, eraser: str) -> Iterator[None]:
        """A probe that raises is a failed unit of its own; what ends a run at once still does."""
        try:
            yield
        except FATAL:
            raise
        except Exception as error:
            reason = error.message if isinstance(error, ConceptBenchError) else repr(error)
            what = f"{probe.id} of {request.concept.name}"
            self.failures.append({"eraser": eraser, "task": task.id, "reason": f"{what}: {reason}", "unit": f"{unit}: {what}"})

    def asked(self, task: Task) -> list[tuple[Probe, ProbeRequest]]:
        """Every probe with every concept of the task that it is about; the same for all models."""
        if task.id not in self._asked:
            self._asked[task.id] = [(m.metric, request) for m in self.probes for request in self._requests(m, task)]
        return self._asked[task.id]

    def key(self, probe: Probe, request: ProbeRequest, model: str) -> str:
        """The content key of what a probe finds: its source and options, the model, and what it is asked about."""
        own = [c for c in type(probe).__mro__ if c.__module__ not in ("builtins", "abc", "typing") and inspect.getsourcefile(c)]
        return key_of(
            {
                "what": "probe",
                "base": self.base.info.components,
                "model": model,
                "probe": probe.protocol,
                "config": probe.config,
                "source": source_hash(own),
                "shared": shared_source_hash(),
                "concept": request.concept,
                "others": list(request.others),
                "conditions": [[c.text, c.negative] for c in request.conditions],
                "seeds": list(request.seeds),
                "sampler": request.sampler,
                "seed": request.seed,
                "prompts": list(request.prompt_ids),
                "versions": library_versions(),
                **({} if self.base.info.precision == "fp32" else {"precision": self.base.info.precision}),  # of anchor images
            }
        )

    def _mine(self, key: str) -> bool:
        shard = self.session.shard
        return int(key[:8], 16) % shard.count == shard.index

    def _requests(self, measure: Measure[Probe], task: Task) -> list[ProbeRequest]:
        concepts, found = task_concepts(self.plan.suite, task), []
        for name, concept in concepts.items():
            role: Role = "target" if name in task.erased else "retained"
            if measure.asks_about(concept, role):
                found.append(self._request(task, concept, role, concepts))
        return found

    def _request(self, task: Task, concept: Concept, role: Role, concepts: Mapping[str, Concept]) -> ProbeRequest:
        own = [s for s in self.plan.images[task.id] if s.concept == concept.name]
        return ProbeRequest(
            concept=concept,
            role=role,
            others=tuple(c for n, c in concepts.items() if n != concept.name),
            conditions=tuple(s.condition for s in own),
            prompt_ids=tuple(s.prompt_id for s in own),
            seeds=tuple(s.seed for s in own),
            sampler=self.plan.suite.sampler,
            seed=self.plan.suite.seed,
            images=lambda c, n: reference_images(self.base, c, n, self.plan.suite.sampler, self.store, self.session)[0],
            progress=self._advance,
        )

    def _advance(self, units: int) -> None:
        self.session.stop.check()
        self.session.reporter.advance(units)

    def _make(self, probe: Probe, request: ProbeRequest, key: str, unit: str, task: Task) -> Probed:
        place = probe.protocol, task.id, request.concept.name
        if place not in self._prepared:
            raise UnitFailedError("the base was not prepared for it", "an earlier line says why")
        what, start = f"{probe.id} of {request.concept.name}, {unit}", time.monotonic()
        with self.session.journal.stage("probe", what), self.work.timed("probe"):
            self.session.reporter.begin(f"probe {what}", probe.work())
            with training_threads(self.base):
                probed = probe.measure(self.base, request, self._prepared[place])
            self.session.reporter.end()
            _check(probe, probed)
            arrays = {**{VALUES + n: v for n, v in probed.values.items()}, **{ARRAYS + n: a for n, a in probed.arrays.items()}}
            save_state(path_of(self.store, key), {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}, {"clusters": list(probed.clusters)})
        self.work.probed.setdefault(probe.protocol, []).append(max(0.0, time.monotonic() - start))
        return probed


def _check(probe: Probe, probed: Probed) -> None:
    """Refuses a finding that does not keep the contract: other parts than declared, or not one value a cluster."""
    if set(probed.values) != {"", *probe.parts}:
        raise PluginError(f"probe {probe.id} gave the parts {sorted(probed.values)}, and declares {sorted({'', *probe.parts})}")
    wrong = [f"{n!r} has {np.shape(v)}" for n, v in probed.values.items() if np.shape(v) != (len(probed.clusters),)]
    if wrong:
        raise PluginError(f"probe {probe.id} named {len(probed.clusters)} clusters, but part {', '.join(wrong)}")
