"""Images a second: our generation against the stock pipeline, as its documentation says to use it.

Ours is :class:`conceptbench.engine.generate.Generation` with batches of 32 and no judges: keys, prompts encoded anew each round,
denoising, decoding, PNG files flushed to disk in a fresh store. The baseline is a second copy of the same weights, loaded by
diffusers, called once a prompt as ``pipeline(prompt, num_inference_steps=..., guidance_scale=..., generator=torch.Generator()
.manual_seed(seed)).images[0].save(path)``, without its progress bar, with the scheduler class and config that our sampler has.

Same prompts, seeds, steps, guidance, threads. The images of both sides are then compared: a byte may differ by one grey level at
most, because a matrix product over another number of rows rounds differently; the share of bytes that differ is shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measuring import Row, Settings, alternate, middle, planned, seconds_of, spaced
from conceptbench.engine.generate import Generation
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.families import load_pipeline
from conceptbench.models.sampling import threads
from conceptbench.models.schedulers import make_scheduler

BATCH = 32
REQUIRED = 3.5
ROUNDS = 5
LEVELS = 1
"""Grey levels of 255 by which a byte of the two sides may differ."""


def run(settings: Settings) -> list[Row]:
    """Two rows: the ratio of speeds, and the largest difference between the images."""
    base, plan = planned(settings)
    specs = spaced(plan.distinct_base_images(), settings.images)
    pipeline = stock_pipeline(base, specs[0])
    with threads(settings.threads), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_ours(base, specs[:BATCH], folder / "warm")
        draw_stock(pipeline, specs[:2], folder / "warm-stock")
        times = alternate(
            lambda i: seconds_of(lambda: draw_ours(base, specs, folder / f"ours-{i}")),
            lambda i: seconds_of(lambda: draw_stock(pipeline, specs, folder / f"stock-{i}")),
            settings.rounds_or(ROUNDS),
        )
        worst, share = difference(images_of_store(base, specs, folder / "ours-0"), images_of_folder(specs, folder / "stock-0"))
    return rows(times, len(specs), worst, share, specs[0])


def rows(times: Sequence[tuple[float, float]], images: int, worst: int, share: float, spec: ImageSpec) -> list[Row]:
    """The table's rows from the seconds of (ours, baseline)."""
    ratio, spread = middle([b / a for a, b in times])
    ours, stock = (f"{images / middle([t[side] for t in times])[0]:.2f} img/s" for side in (0, 1))
    s = spec.sampler
    how = f"{images} held-out images, {s.scheduler} {s.steps} steps, guidance {s.guidance:g}; batch {BATCH} against one prompt a call; PNGs written"
    same = f"of {images} images; {share:.4%} of all bytes differ"
    return [
        Row("sampling", ours, stock, ratio, "x", ("at least", REQUIRED), spread, how),
        Row("sampling: same images", "", "", worst, "levels", ("at most", LEVELS), None, f"largest difference {same}"),
    ]


def stock_pipeline(base: Base, spec: ImageSpec) -> Any:
    """A second copy of the base's pipeline as diffusers loads it, with the sampler's scheduler."""
    pipeline = load_pipeline(base.pipeline.name_or_path)
    pipeline.scheduler = make_scheduler(pipeline.scheduler, spec.sampler.scheduler)
    return pipeline


def draw_ours(base: Base, specs: Sequence[ImageSpec], folder: Path) -> None:
    """All images into a fresh store; nothing is kept from an earlier round."""
    base.forget_encoded()
    Generation(base, specs, BASE, Store(folder), Session(batch=BATCH), what="the benchmark's images").run()


def draw_stock(pipeline: Any, specs: Sequence[ImageSpec], folder: Path) -> None:
    """All images, one call each, as ``NUMBER.png``."""
    folder.mkdir()
    for i, spec in enumerate(specs):
        sampler, negative = spec.sampler, spec.condition.negative
        image = pipeline(
            spec.condition.text,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=torch.Generator().manual_seed(spec.seed),
            **({"negative_prompt": negative} if negative else {}),
        ).images[0]
        image.save(folder / f"{i}.png")


def images_of_store(base: Base, specs: Sequence[ImageSpec], folder: Path) -> NDArray[np.uint8]:
    """(N, H, W, 3) in the order of the specs."""
    return Store(folder).read_images([s.key(base.info, BASE) for s in specs])


def images_of_folder(specs: Sequence[ImageSpec], folder: Path) -> NDArray[np.uint8]:
    """(N, H, W, 3) in the order of the specs."""
    return np.stack([np.asarray(Image.open(folder / f"{i}.png").convert("RGB"), np.uint8) for i in range(len(specs))])


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[int, float]:
    """The largest difference in grey levels, and the share of bytes that differ.

    Raises:
        ValueError: they are not the same number of images of one size.
    """
    if a.shape != b.shape:
        raise ValueError(f"images of {a.shape} and {b.shape} cannot be compared")
    gap = np.abs(a.astype(np.int16) - b.astype(np.int16))
    return int(gap.max()), float((gap > 0).mean())
