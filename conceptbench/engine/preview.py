"""What a plan would cost: units to do and in the store, images, disk, and time as measured by earlier runs in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from conceptbench.core.files import pretty_json, write_text
from conceptbench.engine.erasing import stored_erasure
from conceptbench.engine.plan import BASE, Plan
from conceptbench.engine.store import Store

BYTES_PER_PIXEL = 2.2  # of PNGs at compression level 1, measured on the mini tier's images with their text chunks


@dataclass(frozen=True)
class Preview:
    """Figures of a plan; images of erasures that are still to be made are counted as to do."""

    erasures: int
    erasures_cached: int
    images: int
    images_cached: int
    bytes_to_write: int
    seconds: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """The figures for people."""
        time = (
            "unknown: nothing of this kind was measured in this store yet"
            if self.seconds is None
            else f"about {self.seconds / 60:.1f} min, as measured by earlier runs"
        )
        return [
            f"erasures: {self.erasures - self.erasures_cached} to make, {self.erasures_cached} in the store",
            f"images:   {self.images - self.images_cached} to draw, {self.images_cached} in the store",
            f"disk:     about {self.bytes_to_write / 2**20:.1f} MiB",
            f"time:     {time}",
        ]


def _rates_path(store: Store) -> Any:
    return store.root / "rates.json"


def read_rates(store: Store) -> dict[str, float]:
    """Measured seconds: ``image/BASE/STEPS`` an image, drawing and judging, and ``erase/SPEC`` an erasure."""
    path = _rates_path(store)
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except (OSError, ValueError):
        return {}


def record_rates(store: Store, new: dict[str, float]) -> None:
    """Keeps newly measured rates."""
    write_text(_rates_path(store), pretty_json({**read_rates(store), **new}))


def image_rate_name(plan: Plan) -> str:
    """The rate that a plan's images go by."""
    return f"image/{plan.info.id}/{plan.suite.sampler.scheduler}-{plan.suite.sampler.steps}"


def preview(plan: Plan, store: Store) -> Preview:
    """Counts a plan against the store."""
    wanted = {s.key(plan.info, BASE) for s in plan.distinct_base_images()}
    unknown, cached, seconds = 0, 0, 0.0
    rates, measured = read_rates(store), True
    for unit in plan.erasures:
        stored = stored_erasure(store, unit.key)
        specs = plan.images[unit.task.id]
        if stored is None:
            unknown += len(specs)
            rate = rates.get(f"erase/{unit.entry.spec}")
            measured, seconds = measured and rate is not None, seconds + (rate or 0.0)
        else:
            cached += 1
            weights = stored.weights_hash()
            wanted |= {s.key(plan.info, weights) for s in specs}
    images, present = len(wanted) + unknown, len(store.present(wanted))
    rate = rates.get(image_rate_name(plan))
    measured = measured and (rate is not None or images == present)
    size = plan.suite.sampler.size or plan.info.size
    return Preview(
        erasures=len(plan.erasures),
        erasures_cached=cached,
        images=images,
        images_cached=present,
        bytes_to_write=round((images - present) * size * size * BYTES_PER_PIXEL),
        seconds=seconds + (images - present) * (rate or 0.0) if measured else None,
    )
