"""Makes the images that are missing and shows them to the judges straight from memory, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UnitFailedError
from conceptbench.core.files import key_of
from conceptbench.core.schemas import Concept, Sampler
from conceptbench.core.seeds import training_seed
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.judging import Hearing
from conceptbench.engine.memory import in_halves
from conceptbench.engine.progress import Work
from conceptbench.engine.session import Session, Shard
from conceptbench.engine.store import THREADS, Store
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition


def cut(specs: Sequence[ImageSpec], batch: int) -> list[list[int]]:
    """The plan's batches, as indices: cut from the whole list, one sampler a batch, never from what happens to be left."""
    samplers: dict[str, list[int]] = {}
    for i, spec in enumerate(specs):
        samplers.setdefault(spec.sampler.model_dump_json(), []).append(i)
    return [own[start : start + batch] for _, own in sorted(samplers.items()) for start in range(0, len(own), batch)]


class Generation:
    """The images of one model: those that are missing are made, those that no judge has seen are shown.

    Args:
        base: the model, with whatever erasure is applied to it.
        specs: what to draw; the same image twice is drawn once.
        model: hash of the applied erasure, or ``base``.
        store: where images go.
        session: reporter, journal, stop, shard and batch size.
        what: the unit's name, for people.
        hearing: the judges, or None to only draw.
        work: counts what was done.
    """

    def __init__(
        self,
        base: Base,
        specs: Sequence[ImageSpec],
        model: str,
        store: Store,
        session: Session,
        *,
        what: str,
        hearing: Hearing | None = None,
        work: Work | None = None,
    ) -> None:
        self.base, self.store, self.session, self.hearing = base, store, session, hearing
        self.work, self.what = work or Work(), what
        by_key = {s.key(base.info, model): s for s in specs}
        self.keys, self.specs = list(by_key), list(by_key.values())
        self.made = 0
        # each model's batches begin at another shard, so that small models do not all fall to the first
        self.batches = session.shard.of(cut(self.specs, session.batch), offset=int(key_of(model)[:8], 16))

    def run(self) -> int:
        """Does the work of this shard. Returns how many images were made.

        Raises:
            UnitFailedError: the model gave something that is no image (NaN).
            StoppedError: the session was asked to stop; everything before is kept.
        """
        present = self._present()
        with self.work.timed("judge present"):
            self._show_present(present)
        missing = [[i for i in part if self.keys[i] not in present] for part in self.batches]
        wanted = sum(map(len, missing))
        if wanted:
            # where an image has the same bytes in any batch, only what is missing is made; elsewhere a batch is done again whole
            exact = self.base.exact_rows is not None
            todo = [(lack if exact else part) for lack, part in zip(missing, self.batches, strict=True) if lack]
            self.session.reporter.begin(f"draw {self.what}", sum(map(len, todo)))
            with self.session.journal.stage("generate", self.what, images=wanted), ThreadPoolExecutor(THREADS) as writers:
                for part in todo:
                    self.session.stop.check()
                    in_halves(lambda indices: self._make(indices, present, writers), part, self.work.note)
                    self.session.reporter.advance(len(part))
            self.session.reporter.end()
        return self.made

    def _present(self) -> set[str]:
        """This shard's images that are there and sound; damaged ones are removed, counted and made again."""
        own = [self.keys[i] for part in self.batches for i in part]
        with self.work.timed("check"):
            present = self.store.present(own)
            for key in self.store.damaged(sorted(present)):
                path = self.store.image_path(key)
                path.unlink(missing_ok=True)
                present.discard(key)
                self.work.note(f"the image {path} was damaged and is made again")
        return present

    def _show_present(self, present: set[str]) -> None:
        """Shows the judges what is on disk and what they have not seen."""
        if self.hearing is None:
            return
        unheard = set(self.hearing.unheard(sorted(present)))
        todo = [part for part in ([i for i in own if self.keys[i] in unheard] for own in self.batches) if part]
        if not todo:
            return
        self.session.reporter.begin(f"judge {self.what}", len(unheard))
        with self.session.journal.stage("judge", self.what, images=len(unheard)):
            for part in todo:
                self.session.stop.check()
                in_halves(lambda indices: self._look(indices, self.store.read_images([self.keys[i] for i in indices])), part, self.work.note)
                self.session.journal.write("batch", "judge", self.what, keys=[self.keys[i] for i in part])
                self.session.reporter.advance(len(part))
        self.session.reporter.end()

    def _look(self, indices: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        assert self.hearing is not None
        self.hearing.look([self.keys[i] for i in indices], [self.specs[i] for i in indices], pixels)

    def _make(self, indices: list[int], present: set[str], writers: ThreadPoolExecutor) -> None:
        """Draws a batch; while its files are written, the judges look at it. It is done when its files are on disk."""
        keys = [self.keys[i] for i in indices]
        if all(self.store.has_image(k) for k in keys):  # another process made it meanwhile
            if self.hearing is not None:
                self._look(indices, self.store.read_images(keys))
            return
        with self.work.timed("generate"):
            pixels = self._draw([self.specs[i] for i in indices])
        with self.work.timed("write"):
            pending = [writers.submit(self.store.write_image, k, p) for k, p in zip(keys, pixels, strict=True) if k not in present]
        if self.hearing is not None:
            with self.work.timed("judge"):
                self._look(indices, pixels)
        with self.work.timed("write"):
            for future in pending:
                future.result()  # a write that fails is fatal
        self.made += len(pending)
        self.session.journal.write("batch", "generate", self.what, keys=keys)

    def _draw(self, chosen: Sequence[ImageSpec]) -> NDArray[np.uint8]:
        sampler = chosen[0].sampler
        with self.base.drawing():
            latents = self.base.sample([s.condition for s in chosen], [s.seed for s in chosen], sampler, until=sampler.steps)
        if not np.isfinite(float(latents.sum())):  # type: ignore[union-attr]
            raise UnitFailedError(f"{self.what}: the model's latents are not finite", "its weights hold NaN or infinity; look at the erasure")
        return self.base.decode(latents)  # type: ignore[arg-type]


def generate_alone(base: Base, specs: Sequence[ImageSpec], model: str, store: Store, session: Session, *, what: str) -> int:
    """Draws images without judges and without sharding, e.g. an eraser's reference images. Returns how many were made."""
    return Generation(base, specs, model, store, replace(session, shard=Shard()), what=what).run()


def reference_images(base: Base, concept: Concept, n: int, sampler: Sampler, store: Store, session: Session) -> tuple[NDArray[np.uint8], list[str]]:
    """N images (n, H, W, 3) of a concept from the base over its training texts, through the store, and their keys."""
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
            sampler,
        )
        for i in range(n)
    ]
    generate_alone(base, specs, BASE, store, session, what=f"reference images of {concept.name}")
    keys = [s.key(base.info, BASE) for s in specs]
    return store.read_images(keys), keys
