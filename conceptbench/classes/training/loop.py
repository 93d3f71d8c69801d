"""Training on labelled images by a recipe: which of them a step sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from conceptbench.classes.recipes import Recipe
from conceptbench.training import fitting
from conceptbench.training.fitting import Fitting, generator_at

Loss = Callable[[Tensor, torch.Generator], Tensor]
"""Scalar loss of the examples with these indices (N,), from a generator that is fresh for the step."""


class Rows:
    """Which examples a step sees: all of them once an epoch, in an order that depends on seed and epoch only."""

    def __init__(self, examples: int, batch: int, seed: int) -> None:
        self.examples, self.batch, self.seed = examples, batch, seed
        self.steps = -(-examples // batch)
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> Tensor:
        """(n,) int64 indices, n <= batch."""
        epoch, part = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, torch.randperm(self.examples, generator=generator_at(self.seed + 1, epoch))
        return self._order[part * self.batch : (part + 1) * self.batch]


def fit(
    network: nn.Module,
    loss: Loss,
    recipe: Recipe,
    examples: int,
    *,
    steps: int,
    state: Path,
    key: str,
    seed: int,
    name: str,
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Tensor], float]:
    """Trains a network in place with Adam; see :func:`conceptbench.training.fitting.fit` for what is not explained here.

    Args:
        network: what is optimised.
        loss: see :data:`Loss`.
        recipe: batch, rate, average and clipping.
        examples: how many there are.
        steps: of the optimiser.
        state: file of the training.
        key: of the training.
        seed: of all draws.
        name: shown in progress lines.
        check: called after each step.

    Returns:
        The weights to keep and the running mean of the loss.
    """
    network.requires_grad_(True)
    rows = Rows(examples, recipe.batch, seed)
    how = Fitting(steps, lambda parameters: torch.optim.Adam(parameters, lr=recipe.lr), ema=recipe.ema, clip=recipe.clip)
    return fitting.fit(network, lambda step, generator: loss(rows.at(step), generator), how, state=state, key=key, seed=seed, name=name, check=check)
