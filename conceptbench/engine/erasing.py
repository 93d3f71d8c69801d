"""Makes an erasure, or finds it in the store."""

from __future__ import annotations

import contextlib
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from conceptbench.core.errors import BaseChangedError, ConceptBenchError, PluginError, StoreError, UnitFailedError
from conceptbench.core.schemas import Suite
from conceptbench.core.seeds import training_seed
from conceptbench.engine.joining import check_joinable, joined
from conceptbench.engine.lineup import CHECKPOINT
from conceptbench.engine.plan import EraseUnit, Plan, request_of
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.engine.training import TrainingContext
from conceptbench.engine.watching import watcher_of
from conceptbench.models.base import Base
from conceptbench.models.erasure import Erasure
from conceptbench.models.families import component_hashes
from conceptbench.models.sampling import threads

TRAINING_THREADS = 1
"""CPU threads while erasing: training sums in another order with another number, so it is fixed and recorded."""


def _peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far: of the accelerator since the erasure began, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def training_threads(base: Base) -> Iterator[None]:
    """The fixed number of CPU threads for whatever takes gradients; whole trajectories inside keep all of them."""
    on_cpu = base.device.type == "cpu"
    base.sampling_threads = torch.get_num_threads() if on_cpu else None
    try:
        with threads(TRAINING_THREADS if on_cpu else None):
            yield
    finally:
        base.sampling_threads = None


def erase(base: Base, unit: EraseUnit, suite: Suite, store: Store, *, train_seed: int, session: Session | None = None) -> tuple[Erasure, bool]:
    """The erasure of a unit. Another process that makes the same one is waited for.

    Returns:
        The erasure, and whether it was made now.

    Raises:
        UnitFailedError: the eraser raised, or gave weights that are not finite.
        BaseChangedError: it left the base changed.
        StoppedError: the session was asked to stop; the training is saved.
    """
    session = session or Session()
    stored = stored_erasure(store, unit.key)
    if stored is not None:
        return stored, False
    if unit.key in session.failed:
        raise UnitFailedError(session.failed[unit.key])
    # before its own lock is taken: parts are shared by tasks, and two tasks could wait for each other
    parts = []
    for part in unit.parts:
        parts.append(erase(base, part, suite, store, train_seed=train_seed, session=session)[0])
        check_joinable(parts[-1], unit, part)
    with store.lock(unit.key, session.stop.check):
        stored = stored_erasure(store, unit.key)
        if stored is not None:
            return stored, False
        with session.journal.stage("erase", unit.name):
            if parts:
                erasure = joined(parts, unit, base.component)
                erasure.save(store.erasure_path(unit.key))
            else:
                erasure = _remembered(base, unit, suite, store, train_seed, session)
            return erasure, True


def _remembered(base: Base, unit: EraseUnit, suite: Suite, store: Store, train_seed: int, session: Session) -> Erasure:
    """Makes the erasure; a failure is kept for the other tasks that share it."""
    try:
        erasure = _make(base, unit, suite, store, train_seed, session)
    except UnitFailedError as error:
        session.failed[unit.key] = error.message
        raise
    session.erased[unit.key] = erasure.meta["seconds"]
    return erasure


def check_requests(base: Base, plan: Plan) -> None:
    """Refuses, before anything is made, what an eraser cannot do for this base.

    Raises:
        UserInputError: the eraser's own reason.
    """
    for call in plan.calls():
        call.entry.eraser.check(base, request_of(plan.suite, call, plan.train_seed), call.entry.config)


def _earlier(unit: EraseUnit, store: Store) -> list[Erasure]:
    """The erasures that this one goes on from, the first one first; they are in the store by now."""
    if unit.after is None:
        return []
    last = stored_erasure(store, unit.after.key)
    if last is None:
        raise StoreError(f"the erasure {unit.after.name} went away while {unit.name} was made from it", "run again: it is made anew")
    return [*_earlier(unit.after, store), last]


def _make(base: Base, unit: EraseUnit, suite: Suite, store: Store, train_seed: int, session: Session) -> Erasure:
    request = request_of(suite, unit, train_seed)
    seed = training_seed(train_seed, unit.entry.label, *unit.task.targets)
    watcher = watcher_of(suite, request.targets[0])
    context = TrainingContext(base, suite, store, unit.key, unit.name, seed, session, watcher, source=unit.entry.source_sha256)
    session.reporter.begin(f"erase {unit.name}", getattr(unit.entry.config, "steps", 1))
    if base.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(base.device)
    try:
        with training_threads(base), contextlib.ExitStack() as earlier:
            for before in _earlier(unit, store):
                earlier.enter_context(before.applied(base))
            erasure = _guarded(lambda: unit.entry.eraser().erase(base, request, unit.entry.config, context), unit)
    finally:
        session.reporter.end()
        _check_untouched(base, unit)
    seconds, evaluations = context.spent()
    measured = unit.entry.preset != CHECKPOINT  # what is read from a file was paid for elsewhere
    erasure.meta.update(
        key=unit.key,
        eraser=unit.entry.label,
        preset=unit.entry.preset,
        task=unit.task.id,
        targets=list(unit.task.targets),
        config=unit.entry.config.model_dump(mode="json"),
        train_seed=train_seed if measured else None,
        base=base.info.components,
        curve=context.curve,
        weights_sha256=erasure.weights_hash(),
        threads=TRAINING_THREADS,
        seconds=seconds if measured else None,
        peak_memory_mb=_peak_memory_mb(base.device) if measured else None,
        network_evaluations=evaluations if measured else None,
        size_bytes=erasure.size_bytes(),
        reference_images=context.reference_keys,
    )
    erasure.save(store.erasure_path(unit.key))
    context.clean()
    return erasure


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
            f"{unit.entry.label} left {', '.join(changed)} of the base changed on {unit.place}; the run stops so that nothing is measured on it",
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
        raise UnitFailedError(f"{unit.entry.label} failed on {unit.place}: {error!r} ({Path(where.filename).name}:{where.lineno})") from error
    if not isinstance(erasure, Erasure):
        raise PluginError(f"{unit.entry.label}.erase returned {type(erasure).__name__}, not an Erasure")
    for change in erasure.changes:
        for name, tensor in change.tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise UnitFailedError(f"{unit.entry.label} on {unit.place}: {change.component}.{name} is not finite", "lower its learning rate")
    return erasure
