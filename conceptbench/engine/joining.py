"""One erasure from several, each of which erases one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from conceptbench.core.errors import UnitFailedError
from conceptbench.engine.plan import EraseUnit
from conceptbench.models.erasure import Change, Erasure

SUMMED = ("seconds", "network_evaluations", "size_bytes")
JOINED = ("curve", "reference_images", "base")
"""Of a part's record, what stands in the whole one's."""


def check_joinable(part: Erasure, unit: EraseUnit, of: EraseUnit) -> None:
    """Refuses a part that cannot be added to others, before the next one is made.

    Raises:
        UnitFailedError: it changes sampling, replaces weights, or hides what brings its target back: that has no sum with others.
    """
    if part.runtime is not None or part.recovery is not None or any(c.kind not in ("additive", "low-rank") for c in part.changes):
        raise UnitFailedError(
            f"{unit.entry.label} cannot erase {', '.join(unit.task.targets)} {unit.task.mode}: its erasure of {of.task.targets[0]!r} is no sum of changes",
            "its class should say supports.iterative = False",
        )


def joined(parts: Sequence[Erasure], unit: EraseUnit, component: str) -> Erasure:
    """The changes of a unit's parts one after another, each tagged with its target, with what they cost together.

    Changes that add up make the same weights in any order, so that any target can be left out again.

    Args:
        parts: one a target, in the task's order; :func:`check_joinable` has seen them.
        unit: what they are the parts of.
        component: which a part that changes nothing does not change.
    """
    changes: list[Change] = []
    artefacts: dict[str, Tensor] = {}
    hidden: dict[str, Tensor] = {}
    for part, of in zip(parts, unit.parts, strict=True):
        target = of.task.targets[0]
        changes += [replace(c, concept=c.concept or target) for c in part.changes] or [Change(component, "additive", {}, target)]
        artefacts |= {f"{target}/{n}": t for n, t in part.artefacts.items()}
        hidden |= {f"{target}/{n}": t for n, t in part.hidden.items()}
    erasure = Erasure(changes, artefacts=artefacts, hidden=hidden)
    first = parts[0].meta
    own: dict[str, Any] = {k: first[k] for k in ("eraser", "preset", "config", "train_seed", "base", "threads")}
    costs = {k: None if any(p.meta[k] is None for p in parts) else sum(p.meta[k] for p in parts) for k in SUMMED}
    peaks = [p.meta["peak_memory_mb"] for p in parts if p.meta["peak_memory_mb"] is not None]
    erasure.meta = {
        **own,
        **costs,
        "key": unit.key,
        "task": unit.task.id,
        "targets": list(unit.task.targets),
        "mode": unit.task.mode,
        "parts": [{k: v for k, v in p.meta.items() if k not in JOINED} for p in parts],
        "peak_memory_mb": max(peaks, default=None),
        "curve": _curve([p.meta["curve"] for p in parts]),
        "weights_sha256": erasure.weights_hash(),
        "reference_images": [k for p in parts for k in p.meta["reference_images"]],
    }
    return erasure


def _curve(curves: Sequence[Sequence[dict[str, float | None]]]) -> list[dict[str, float | None]]:
    """Curves one after another: steps count on."""
    found: list[dict[str, float | None]] = []
    for curve in curves:
        start = int(found[-1]["step"] or 0) + 1 if found else 0
        found += [{**point, "step": start + int(point["step"] or 0)} for point in curve]
    return found
