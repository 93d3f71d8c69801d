"""Makes the images that are missing: many prompts in a batch, files written while the next batch is denoised."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UnitFailedError
from conceptbench.engine.plan import ImageSpec
from conceptbench.engine.progress import Reporter, Silent
from conceptbench.engine.store import Store
from conceptbench.models.base import Base


def batches_to_do(specs: Sequence[ImageSpec], keys: Sequence[str], present: set[str], batch: int, *, exact: bool) -> list[list[int]]:
    """Indices of the images to make, in the plan's batches.

    Batches are cut from the whole list, never from what is left. Where an image has the same bytes in any batch
    (``exact``: CPU, fp32), only the missing ones of a batch are made; elsewhere an unfinished batch is done again whole.
    """
    samplers = {s.sampler for s in specs}
    todo = []
    for sampler in sorted(samplers, key=lambda s: s.model_dump_json()):
        own = [i for i, s in enumerate(specs) if s.sampler == sampler]
        for start in range(0, len(own), batch):
            part = own[start : start + batch]
            missing = [i for i in part if keys[i] not in present]
            if missing:
                todo.append(missing if exact else part)
    return todo


def generate(base: Base, specs: Sequence[ImageSpec], model: str, store: Store, *, batch: int, reporter: Reporter | None = None, what: str = "images") -> int:
    """Makes the images of ``specs`` that are not in the store, with whatever erasure is applied to the base.

    Args:
        base: the model.
        specs: what to draw; the same image twice is drawn once.
        model: hash of the applied erasure, or ``base``.
        store: where images go.
        batch: images a forward.
        reporter: hears of progress.
        what: the stage's name.

    Returns:
        How many images were made.

    Raises:
        UnitFailedError: the model gave something that is no image (NaN).
    """
    reporter = reporter or Silent()
    specs = list({s.key(base.info, model): s for s in specs}.values())
    keys = [s.key(base.info, model) for s in specs]
    present = store.present(keys)
    exact = base.device.type == "cpu"
    todo = batches_to_do(specs, keys, present, batch, exact=exact)
    made = sum(map(len, todo))
    if not made:
        return 0
    reporter.begin(what, made)
    with ThreadPoolExecutor(2) as writers:
        pending: list[Future[None]] = []
        for indices in todo:
            chosen = [specs[i] for i in indices]
            latents = base.sample([s.condition for s in chosen], [s.seed for s in chosen], chosen[0].sampler, until=chosen[0].sampler.steps)
            if not np.isfinite(float(latents.sum())):  # type: ignore[union-attr]
                raise UnitFailedError(f"{what}: the model's latents are not finite", "its weights hold NaN or infinity; look at the erasure")
            pixels: NDArray[np.uint8] = base.decode(latents)  # type: ignore[arg-type]
            for i, image in zip(indices, pixels, strict=True):
                if keys[i] not in present:
                    pending.append(writers.submit(store.write_image, keys[i], image))
            reporter.advance(len(indices))
        for future in pending:
            future.result()  # a write that fails is fatal
    reporter.end()
    return made
