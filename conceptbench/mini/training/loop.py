"""How the mini tier's networks are trained: AdamW, a warm-up and a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from conceptbench.core.files import key_of
from conceptbench.training import fitting
from conceptbench.training.fitting import Fitting


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        lr: peak learning rate; linear warm-up over the first 100 steps, then a cosine to a twentieth of it.
        ema: decay of the weight average that is kept.
        weight_decay: of AdamW.
        replanned: (step, steps): up to that step the rate followed a plan of so many steps, from then on this one. The shipped
            weights were trained so, and a recipe must say what was done.
    """

    steps: int
    lr: float
    ema: float = 0.999
    weight_decay: float = 0.01
    replanned: tuple[int, int] | None = None

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        warm = min(1.0, (step + 1) / 100)
        steps = self.replanned[1] if self.replanned and step < self.replanned[0] else self.steps
        return self.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def fit(module: nn.Module, loss: Callable[[torch.Generator], Tensor], schedule: Schedule, *, state: Path, seed: int, name: str) -> dict[str, Tensor]:
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
    adamw = Fitting(
        schedule.steps,
        lambda parameters: torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay),
        rate=schedule.lr_at,
        ema=schedule.ema,
        clip=1.0,
    )
    key = key_of({"name": name, "seed": seed, "schedule": asdict(schedule)})
    return fitting.fit(module, lambda _step, generator: loss(generator), adamw, state=state, key=key, seed=seed, name=name)[0]
