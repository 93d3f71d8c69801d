"""What a plan would cost: units to do and in the store, images, disk, and time as measured by earlier runs in the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.engine.erasing import stored_erasure
from conceptbench.engine.images import BASE
from conceptbench.engine.plan import EraseUnit, Plan
from conceptbench.engine.probing import Probing, path_of, probes_of
from conceptbench.engine.progress import Work
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.engine.timing import predicted_seconds, read_rates
from conceptbench.models.base import Base
from conceptbench.models.erasure import Erasure
from conceptbench.models.probe import Probe

COUNTS = ("erasures", "erasures_cached", "images", "images_cached", "probes", "probes_cached", "bytes_to_write")
BYTES_PER_WEIGHT = 4  # changes are kept in fp32
BYTES_PER_PIXEL = 2.2  # of PNGs at compression level 1, measured on the mini tier's images with their text chunks


@dataclass(frozen=True)
class Preview:
    """Figures of a plan; images of erasures that are still to be made are counted as to do."""

    erasures: int
    erasures_cached: int
    images: int
    images_cached: int
    probes: int
    probes_cached: int
    bytes_to_write: int
    seconds: float
    measured: bool

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """The figures for people."""
        source = "as measured by earlier runs" if self.measured else "by a short trial on this machine"
        return [
            f"erasures: {self.erasures - self.erasures_cached} to make, {self.erasures_cached} in the store",
            f"images:   {self.images - self.images_cached} to draw, {self.images_cached} in the store",
            *([f"probes:   {self.probes - self.probes_cached} to make, {self.probes_cached} in the store"] if self.probes else []),
            f"disk:     about {self.bytes_to_write / 2**20:.1f} MiB",
            f"time:     about {duration(self.seconds)}, {source}",
        ]


def total(every: Sequence[Preview]) -> Preview:
    """The figures of several plans together; what two of them share is counted twice."""
    counts = {name: sum(getattr(p, name) for p in every) for name in COUNTS}
    return Preview(**counts, seconds=sum(p.seconds for p in every), measured=all(p.measured for p in every))


def duration(seconds: float) -> str:
    """``40 s``, ``7.5 min``, ``3.2 h`` or ``2.1 days``."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def preview(plan: Plan, store: Store, base: Base) -> Preview:
    """Counts a plan against the store and says how long the rest will take; a short trial of the base if nothing is known."""
    stored = {unit.key: stored_erasure(store, unit.key) for unit in plan.erasures}
    images, present = _counted(plan, store, stored)
    calls = plan.calls()
    # the parts of what is there whole are not asked for
    wanted = {part.key for unit in plan.erasures if stored[unit.key] is None for part in unit.calls}
    missing = [c for c in calls if c.key in wanted and (stored[c.key] if c.key in stored else stored_erasure(store, c.key)) is None]
    size = plan.suite.sampler.size or plan.info.size
    probes, unprobed = _unprobed(plan, store, base, stored)
    seconds, measured = predicted_seconds(plan, base, read_rates(store), images=images - present, erasures=missing, probes=unprobed)
    return Preview(
        erasures=len(calls),
        erasures_cached=len(calls) - len(missing),
        images=images,
        images_cached=present,
        probes=probes,
        probes_cached=probes - len(unprobed),
        bytes_to_write=round((images - present) * size * size * BYTES_PER_PIXEL) + sum(_bytes_of(base, c) for c in missing),
        seconds=seconds,
        measured=measured,
    )


def _bytes_of(base: Base, call: EraseUnit) -> int:
    """Of an erasure, if it changes the group of weights that its method trains or edits; 0 for one that works at run time."""
    load = call.entry.eraser.load(call.entry.config, len(call.task.targets))
    if not load.trained and "parameters" not in type(call.entry.config).model_fields:
        return 0
    return sum(p.numel() for p in base.parameters(load.parameters).values()) * BYTES_PER_WEIGHT


def _unprobed(plan: Plan, store: Store, base: Base, erasures: Mapping[str, Erasure | None]) -> tuple[int, list[Probe]]:
    """How many findings a plan has, and the probes of those that are still to be made."""
    probing = Probing(base, plan, store, Session(), probes_of(plan.suite), Work(), collect=True)
    if not probing.probes:
        return 0, []
    models, unknown = [(task, BASE) for task in plan.suite.tasks], list[Probe]()
    for unit in plan.erasures:
        stored = erasures[unit.key]
        if stored is None:
            unknown += [probe for probe, _ in probing.asked(unit.task)]
        else:
            models.append((unit.task, stored.restoring(unit.task.restored, unit.task.restore_with).weights_hash()))
    found = {probing.key(probe, request, model): probe for task, model in models for probe, request in probing.asked(task)}
    return len(found) + len(unknown), [probe for key, probe in found.items() if not path_of(store, key).exists()] + unknown


def _counted(plan: Plan, store: Store, erasures: Mapping[str, Erasure | None]) -> tuple[int, int]:
    """How many distinct images a plan has, and how many of them the store has."""
    models, unknown = [(t.id, BASE) for t in plan.suite.tasks], 0
    for unit in plan.erasures:
        stored = erasures[unit.key]
        if stored is None:
            unknown += len(plan.images[unit.task.id])
        else:
            models.append((unit.task.id, stored.restoring(unit.task.restored, unit.task.restore_with).weights_hash()))
    digests = (d for task, model in models for d in plan.images[task].digests(plan.info, model))
    keys = _short(digests, sum(len(plan.images[task]) for task, _ in models))
    keys.sort()  # in place: millions of keys are counted in their own memory
    distinct = int(np.count_nonzero(keys[1:] != keys[:-1])) + bool(len(keys))
    there = np.unique(_short(store.digests()))
    place = np.searchsorted(keys, there)
    found = int((keys[np.minimum(place, len(keys) - 1)] == there).sum()) if len(keys) else 0
    return distinct + unknown, found


def _short(digests: Iterable[bytes], count: int = -1) -> NDArray[np.uint64]:
    """The first 64 bits of keys, enough to count them: among a million, two agree by chance once in 30 million plans."""
    return np.fromiter((int.from_bytes(d[:8], "big") for d in digests), np.uint64, count)
