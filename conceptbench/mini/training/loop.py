"""The one training loop of the mini tier: resumable, reproducible from a seed, with an averaged copy of the weights."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        lr: peak learning rate; linear warm-up over the first 100 steps, then a cosine to a twentieth of it.
        ema: decay of the weight average that is kept.
        weight_decay: of AdamW.
        save_every: steps between checkpoints.
        replanned: (step, steps): up to that step the rate followed a plan of so many steps, from then on this one. The shipped
            weights were trained so, and a recipe must say what was done.
    """

    steps: int
    lr: float
    ema: float = 0.999
    weight_decay: float = 0.01
    save_every: int = 100
    replanned: tuple[int, int] | None = None

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        warm = min(1.0, (step + 1) / 100)
        steps = self.replanned[1] if self.replanned and step < self.replanned[0] else self.steps
        return self.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def generator_at(seed: int, step: int) -> torch.Generator:
    """The generator of one step: a resumed run draws what an uninterrupted one would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def _atomic_save(state: dict[str, object], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def fit(
    module: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    schedule: Schedule,
    *,
    state: Path,
    seed: int,
    name: str,
) -> dict[str, Tensor]:
    """Trains the module in place.

    Args:
        module: what is optimised; everything that ``loss`` trains must be in it.
        loss: one scalar loss from a generator that is fresh for the step.
        schedule: length and rates.
        state: file with weights, optimiser and step; if it exists, training goes on from it.
        seed: of all draws.
        name: shown in progress lines.

    Returns:
        The averaged weights as a state dict (buffers included).
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay)
    average = {k: v.clone() for k, v in module.state_dict().items()}
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first = saved["average"], saved["step"]
    module.train()
    begin, shown = time.monotonic(), 0.0
    for step in range(first, schedule.steps):
        optimiser.param_groups[0]["lr"] = schedule.lr_at(step)
        optimiser.zero_grad(set_to_none=True)
        value = loss(generator_at(seed, step))
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        decay = min(schedule.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for key, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    average[key].lerp_(tensor, 1 - decay)
                else:
                    average[key].copy_(tensor)
        shown = float(value.detach()) if shown == 0 else 0.98 * shown + 0.02 * float(value.detach())
        if (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps:
            _atomic_save({"module": module.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step + 1}, state)
            rate = (time.monotonic() - begin) / (step + 1 - first)
            sys.stderr.write(f"{name} step {step + 1}/{schedule.steps} loss {shown:.4f} {rate:.3f} s/step\n")
            sys.stderr.flush()
    return average
