"""An erasure in the making: the harness's side of an eraser's work, and the state from which a killed training goes on."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.core.errors import BaseChangedError
from conceptbench.core.files import key_of
from conceptbench.core.schemas import Concept, Suite
from conceptbench.core.seeds import training_seed
from conceptbench.engine.generate import reference_images
from conceptbench.engine.images import library_versions
from conceptbench.engine.lineup import shared_source_hash
from conceptbench.engine.pictures import square_pictures
from conceptbench.engine.session import Session
from conceptbench.engine.state import load_state, save_state
from conceptbench.engine.store import Store
from conceptbench.engine.watching import Watcher
from conceptbench.models.base import Base
from conceptbench.models.eraser import SavedTraining
from conceptbench.models.erasure import TEXT_COMPONENTS
from conceptbench.models.families import component_hashes

CURVE_POINTS = 200
GENERATOR = "generator"
SAVING = 10
"""A checkpoint may take at most about one part in so many of the time."""


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
        watcher: looks at the model while it trains, or None.
        source: hash of the plugin's source.
    """

    def __init__(
        self,
        base: Base,
        suite: Suite,
        store: Store,
        key: str,
        unit: str,
        seed: int,
        session: Session,
        watcher: Watcher | None = None,
        *,
        source: str = "",
    ) -> None:
        self._base, self._suite, self._store, self._session, self._unit = base, suite, store, session, unit
        self._watcher, self._source = watcher, source
        # not copies: training and erasures put new tensors in their place
        self._originals = [(p, p.data) for m in base.modules().values() for p in m.parameters()]
        self._of_texts = {id(p) for n in TEXT_COMPONENTS if n in base.modules() for p in base.modules()[n].parameters()}
        self.folder = store.training_folder(key)
        self.generator = torch.Generator().manual_seed(seed)
        self.curve: list[dict[str, float | None]] = []
        self.reference_keys: list[str] = []
        self._spent = {"seconds": 0.0, "evaluations": 0}
        self._free, self._is_free = 0, False  # network evaluations that are not the eraser's
        self._began, self._counted = time.monotonic(), base.evaluations
        self._saved_at, self._save_seconds = time.monotonic(), 0.0
        self._phase = 0  # an eraser may train several times

    # -- what the eraser sees ----------------------------------------------------------------------------------------
    def images(self, concept: Concept, n: int, folder: str | None = None) -> NDArray[np.uint8]:
        """N images of a concept from the unmodified base, over its training texts, through the store; or of a folder. (n, H, W, 3) uint8."""
        if folder is not None:
            return square_pictures(Path(folder), n, self._base.latent_shape(self._suite.sampler.size)[1] * self._base.factor)
        with self._free_of_charge(), self._unchanged():
            images, keys = reference_images(self._base, concept, n, self._suite.sampler, self._store, self._session)
        self.reference_keys.extend(keys)
        return images

    def shared(self, name: str, key: Mapping[str, Any], make: Callable[[torch.Generator], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors of the base and of ``key`` only: read back, or made now and kept for all erasures. Not part of what this one costs."""
        info = self._base.info
        parts = {"what": name, "base": info.components, "key": key, "versions": library_versions()}
        digest = key_of({**parts, "source": [shared_source_hash(), self._source], "precision": info.precision})
        path = self._store.root / "shared" / f"{name}-{digest}.safetensors"
        with self._store.lock(digest, self._session.stop.check):
            found = load_state(path)
            if found is not None:
                self.reference_keys.extend(found[1]["reference_keys"])
                return {n: t.to(self._base.device) for n, t in found[0].items()}
            before = len(self.reference_keys)
            with self._free_of_charge(), self._unchanged():
                # not of the digest: an edited comment would be another draw
                made = make(torch.Generator().manual_seed(training_seed(name, key_of({"base": info.components, "key": key}))))
                save_state(path, made, {"key": key, "base": info.components, "reference_keys": self.reference_keys[before:]})
        return made

    def tick(self) -> None:
        """Stops, if the session was asked to."""
        self._session.stop.check()

    @contextmanager
    def _free_of_charge(self) -> Iterator[None]:
        """What the store may have already is not counted: a warm store must not make an eraser look cheaper."""
        if self._is_free:  # images for something that is free itself
            yield
            return
        counted, self._is_free = self._base.evaluations, True
        try:
            with self._unpaid():
                yield
        finally:
            self._is_free = False
            self._free += self._base.evaluations - counted

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """The base with the weights that it had before anything was erased, whatever is applied to it or trained at the moment.

        Raises:
            BaseChangedError: these weights were edited in place: what is drawn now would be stored as the base's.
        """
        own = [(p, original, p.data, p.requires_grad) for p, original in self._originals]
        runtime, self._base.runtime = self._base.runtime, None
        other_texts = any(id(p) in self._of_texts and current.data_ptr() != original.data_ptr() for p, original, current, _ in own)
        try:
            if other_texts:
                self._base.forget_encoded()
            for parameter, original, _, _ in own:
                parameter.data = original
                parameter.requires_grad_(False)
            if component_hashes(self._base.pipeline) != self._base.info.components:
                raise BaseChangedError(f"{self._unit} edited the base's own tensors in place", "train inside `trainable(...)`, which works on copies")
            yield
        finally:
            for parameter, _, current, trained in own:
                parameter.data = current
                parameter.requires_grad_(trained)
            self._base.runtime = runtime
            if other_texts:
                self._base.forget_encoded()

    def progress(self, step: int, total: int, loss: float, *, prompt: Tensor | None = None, **values: float) -> None:
        """Keeps at most 200 points of the curve and moves the bar; looks at the model now and then if the suite says so."""
        seen = {}
        if self._watcher is not None and self._watcher.is_due(step, total):
            with self._free_of_charge():
                seen = self._watcher.look(self._base, prompt)
        if seen or step % max(1, total // CURVE_POINTS) == 0 or step + 1 == total:
            self.curve.append({"step": step, "loss": _finite(loss), **{k: _finite(v) for k, v in {**values, **seen}.items()}})
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
            start = time.monotonic()
            with self._unpaid():
                save_state(self._step_path(), {**tensors(), GENERATOR: self.generator.get_state()}, {**self._paid(), "step": step})
            self._save_seconds = max(0.0, time.monotonic() - start)
            self._session.journal.write("checkpoint", "erase", self._unit, step=step)
            self._saved_at = time.monotonic()
        if stop:
            self._session.stop.check()

    def _step_path(self) -> Path:
        return self.folder / f"step-{self._phase}.safetensors"

    @contextmanager
    def _unpaid(self) -> Iterator[None]:
        """Saving and watching is the harness's time, not the method's."""
        start = time.monotonic()
        yield
        self._began += max(0.0, time.monotonic() - start)

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
