"""Makes an erasure, or finds it in the store."""

from __future__ import annotations

import contextlib
import math
import resource
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from conceptbench.core.errors import BaseChangedError, ConceptBenchError, PluginError, StoreError, UnitFailedError
from conceptbench.core.manifests import task_concepts
from conceptbench.core.schemas import Concept, Suite
from conceptbench.core.seeds import training_seed
from conceptbench.engine.generate import generate
from conceptbench.engine.plan import BASE, EraseUnit, ImageSpec
from conceptbench.engine.progress import Reporter, Silent
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import EraseRequest
from conceptbench.models.erasure import Erasure
from conceptbench.models.families import component_hashes

TRAINING_THREADS = 1
"""CPU threads while erasing: training sums in another order with another number, so it is fixed and recorded."""
CURVE_POINTS = 200


class StoreContext:
    """The harness's side of an eraser's work (:class:`conceptbench.models.eraser.Context`)."""

    def __init__(self, base: Base, suite: Suite, store: Store, seed: int, reporter: Reporter) -> None:
        self._base, self._suite, self._store, self._reporter = base, suite, store, reporter
        self._seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.curve: list[dict[str, float | None]] = []
        self.reference_keys: list[str] = []

    def images(self, concept: Concept, n: int) -> NDArray[np.uint8]:
        """N images of a concept from the base, over its training texts, through the store. (n, H, W, 3) uint8."""
        texts = concept.texts()
        specs = [
            ImageSpec(
                "reference",
                concept.name,
                "target",
                f"reference-{i}",
                i,
                Condition(texts[i % len(texts)]),
                training_seed("reference", concept.name, i),
                self._suite.sampler,
            )
            for i in range(n)
        ]
        counted = self._base.evaluations
        generate(self._base, specs, BASE, self._store, batch=32)
        self._base.evaluations = counted  # a warm store must not make an eraser look cheaper
        keys = [s.key(self._base.info, BASE) for s in specs]
        self.reference_keys.extend(keys)
        return np.stack([self._store.read_image(k) for k in keys])

    def progress(self, step: int, total: int, loss: float, **values: float) -> None:
        """Keeps at most 200 points of the curve and moves the bar."""
        if step % max(1, total // CURVE_POINTS) == 0 or step + 1 == total:
            self.curve.append({"step": step, "loss": _finite(loss), **{k: _finite(v) for k, v in values.items()}})
        self._reporter.advance(1)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def erase(base: Base, unit: EraseUnit, suite: Suite, store: Store, *, train_seed: int, reporter: Reporter | None = None) -> tuple[Erasure, bool]:
    """The erasure of a unit.

    Returns:
        The erasure, and whether it was made now.

    Raises:
        UnitFailedError: the eraser raised, or left the base changed.
    """
    reporter = reporter or Silent()
    path = store.erasure_path(unit.key)
    stored = stored_erasure(store, unit.key)
    if stored is not None:
        return stored, False
    concepts = task_concepts(suite, unit.task)
    seed = training_seed(train_seed, unit.entry.label, *unit.task.targets)
    request = EraseRequest(
        targets=tuple(concepts[n] for n in unit.task.targets), retained=tuple(concepts[n] for n in unit.task.retained), sampler=suite.sampler, seed=train_seed
    )
    context = StoreContext(base, suite, store, seed, reporter)
    threads = torch.get_num_threads()
    evaluations, started = base.evaluations, time.monotonic()
    reporter.begin(f"erase {unit.entry.label} [{unit.task.id}]", getattr(unit.entry.config, "steps", 1))
    if base.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        if base.device.type == "cpu":
            torch.set_num_threads(TRAINING_THREADS)
        erasure = _guarded(lambda: unit.entry.eraser().erase(base, request, unit.entry.config, context), unit)
    finally:
        torch.set_num_threads(threads)
        reporter.end()
        _check_untouched(base, unit)
    erasure.meta.update(
        key=unit.key,
        eraser=unit.entry.label,
        preset=unit.entry.preset,
        task=unit.task.id,
        config=unit.entry.config.model_dump(mode="json"),
        train_seed=train_seed,
        base=base.info.components,
        curve=context.curve,
        weights_sha256=erasure.weights_hash(),
        threads=TRAINING_THREADS,
        seconds=time.monotonic() - started,
        peak_memory_mb=_peak_memory_mb(),
        network_evaluations=base.evaluations - evaluations,
        size_bytes=erasure.size_bytes(),
        reference_images=context.reference_keys,
    )
    erasure.save(path)
    return erasure, True


def stored_erasure(store: Store, key: str) -> Erasure | None:
    """The erasure in the store if its key and checksum match; a damaged one counts as not there and is made again."""
    path = store.erasure_path(key)
    with contextlib.suppress(StoreError):
        erasure = Erasure.load(path) if path.exists() else None
        if erasure is not None and erasure.meta.get("key") == key and erasure.meta.get("weights_sha256") == erasure.weights_hash():
            return erasure
    return None


def _check_untouched(base: Base, unit: EraseUnit) -> None:
    """Refuses to go on with a base that an eraser changed, also when it failed on the way."""
    hashes = component_hashes(base.pipeline)
    changed = [c for c, h in base.info.components.items() if hashes.get(c) != h]
    if changed:
        raise BaseChangedError(
            f"{unit.entry.label} left {', '.join(changed)} of the base changed on task {unit.task.id!r}; the run stops so that nothing is measured on it",
            "train inside `trainable(...)`, which puts every weight back",
        )


def _guarded(make: Callable[[], Erasure], unit: EraseUnit) -> Erasure:
    """Runs a plugin: whatever it raises becomes a failed unit that names it, with the cause attached."""
    try:
        erasure = make()
    except ConceptBenchError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UnitFailedError(f"{unit.entry.label} failed on task {unit.task.id!r}: {error!r} ({Path(where.filename).name}:{where.lineno})") from error
    if not isinstance(erasure, Erasure):
        raise PluginError(f"{unit.entry.label}.erase returned {type(erasure).__name__}, not an Erasure")
    for change in erasure.changes:
        for name, tensor in change.tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise UnitFailedError(f"{unit.entry.label} on task {unit.task.id!r}: {change.component}.{name} is not finite", "lower its learning rate")
    return erasure
