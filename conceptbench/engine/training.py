"""An erasure in the making: the harness's side of an eraser's work, and the state from which a killed training goes on."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from conceptbench.core.files import atomic_path, canonical_json, key_of
from conceptbench.core.schemas import Concept, Suite
from conceptbench.core.seeds import training_seed
from conceptbench.engine.generate import generate_alone
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import SavedTraining
from conceptbench.models.families import hash_tensors

CURVE_POINTS = 200
GENERATOR = "generator"
SAVING = 10
"""A checkpoint may take at most about one part in so many of the time."""


def save_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Writes tensors and values as one safetensors file with a checksum, whole or not at all."""
    kept = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(kept, temporary, metadata={"state": canonical_json(values), "sha256": _checksum(kept, values)})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What :func:`save_state` wrote; None if it is not there or damaged, and the work is done again."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            values, checksum = json.loads(header["state"]), header["sha256"]
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
    return (tensors, values) if checksum == _checksum(tensors, values) else None


def _checksum(tensors: dict[str, Tensor], values: dict[str, Any]) -> str:
    return key_of({"tensors": hash_tensors(tensors), "values": values})


class TrainingContext:
    """The harness's side of an eraser's work (:class:`conceptbench.models.eraser.Context`).

    Its state on disk is what has been paid for (seconds, network evaluations, the curve), the generator, and whatever the eraser
    keeps: the result of :meth:`once` and the last :meth:`checkpoint`. Going on from it gives the same bytes as never having stopped.

    Args:
        base: the model.
        suite: for the sampler.
        store: of images and of the state.
        key: the erasure's.
        unit: its name, for the journal.
        seed: of the generator.
        session: reporter, journal, stop.
    """

    def __init__(self, base: Base, suite: Suite, store: Store, key: str, unit: str, seed: int, session: Session) -> None:
        self._base, self._suite, self._store, self._session, self._unit = base, suite, store, session, unit
        self.folder = store.training_folder(key)
        self.generator = torch.Generator().manual_seed(seed)
        self.curve: list[dict[str, float | None]] = []
        self.reference_keys: list[str] = []
        self._spent = {"seconds": 0.0, "evaluations": 0}
        self._free = 0  # network evaluations that are not the eraser's
        self._began, self._counted = time.monotonic(), base.evaluations
        self._saved_at, self._save_seconds = time.monotonic(), 0.0
        self._phase = 0  # an eraser may train several times

    # -- what the eraser sees ----------------------------------------------------------------------------------------
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
        generate_alone(self._base, specs, BASE, self._store, self._session, what=f"reference images of {concept.name}")
        self._free += self._base.evaluations - counted  # a warm store must not make an eraser look cheaper
        keys = [s.key(self._base.info, BASE) for s in specs]
        self.reference_keys.extend(keys)
        return self._store.read_images(keys)

    def progress(self, step: int, total: int, loss: float, **values: float) -> None:
        """Keeps at most 200 points of the curve and moves the bar."""
        if step % max(1, total // CURVE_POINTS) == 0 or step + 1 == total:
            self.curve.append({"step": step, "loss": _finite(loss), **{k: _finite(v) for k, v in values.items()}})
        self._session.reporter.advance(1)

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors that ``make`` gives: made now and kept, or read back with the generator as it was after making them."""
        path = self.folder / f"once-{name}.safetensors"
        found = load_state(path)
        if found is not None:
            tensors, values = found
            self._restore(tensors.pop(GENERATOR), values)
            return {n: t.to(self._base.device) for n, t in tensors.items()}
        self._session.stop.check()
        made = make()
        with self._unpaid():
            save_state(path, {**made, GENERATOR: self.generator.get_state()}, self._paid())
        return made

    def saved(self) -> SavedTraining | None:
        """The last checkpoint of the next training, with the generator and the curve as they were; None to begin.

        An eraser that trains several times calls this before each training, always in the same order.
        """
        self._phase += 1
        found = load_state(self._step_path())
        if found is None:
            return None
        tensors, values = found
        self._restore(tensors.pop(GENERATOR), values)
        self._session.reporter.advance(int(values["step"]))
        return SavedTraining(int(values["step"]), tensors)

    def checkpoint(self, step: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        """Saves the training if it is time to, or if the session was asked to stop; then stops."""
        stop, every = self._session.stop.asked, self._session.checkpoint_seconds
        pause = max(every, SAVING * self._save_seconds) if every else 0.0
        if stop or time.monotonic() - self._saved_at >= pause:
            with self._unpaid():
                save_state(self._step_path(), {**tensors(), GENERATOR: self.generator.get_state()}, {**self._paid(), "step": step})
            self._session.journal.write("checkpoint", "erase", self._unit, step=step)
            self._saved_at = time.monotonic()
        if stop:
            self._session.stop.check()

    def _step_path(self) -> Path:
        return self.folder / f"step-{self._phase}.safetensors"

    @contextmanager
    def _unpaid(self) -> Iterator[None]:
        """Saving is the harness's time, not the method's."""
        start = time.monotonic()
        yield
        self._save_seconds = max(0.0, time.monotonic() - start)
        self._began += self._save_seconds

    # -- what it cost ------------------------------------------------------------------------------------------------
    def spent(self) -> tuple[float, int]:
        """Seconds and network evaluations of this erasure, those before a restart included."""
        seconds = self._spent["seconds"] + max(0.0, time.monotonic() - self._began)
        return seconds, int(self._spent["evaluations"] + self._base.evaluations - self._counted - self._free)

    def clean(self) -> None:
        """Removes the state: the erasure is made."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paid(self) -> dict[str, Any]:
        seconds, evaluations = self.spent()
        return {"seconds": seconds, "evaluations": evaluations, "curve": self.curve, "reference_keys": self.reference_keys}

    def _restore(self, generator: Tensor, values: dict[str, Any]) -> None:
        self.generator.set_state(generator)
        self.curve, self.reference_keys = list(values["curve"]), list(values["reference_keys"])
        self._spent = {"seconds": float(values["seconds"]), "evaluations": int(values["evaluations"])}
        self._began, self._counted, self._free = time.monotonic(), self._base.evaluations, 0


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
