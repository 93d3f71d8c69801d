"""The training loop: Adam, resumable, on a CPU reproducible to the byte from a seed, with an average of the weights."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conceptbench.classes.recipes import Recipe
from conceptbench.core.errors import StoppedError, UserInputError
from conceptbench.core.files import atomic_path

SAVE_SECONDS = 60.0
TELL_SECONDS = 10.0

Loss = Callable[[Tensor, torch.Generator], Tensor]
"""Scalar loss of the examples with these indices (N,), from a generator that is fresh for the step."""


def generator_at(seed: int, step: int) -> torch.Generator:
    """The generator of one step: a resumed training draws what an uninterrupted one would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


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


def _write(state: dict[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _read(path: Path, key: str, device: torch.device) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise UserInputError(f"cannot read {path}: {str(error).partition(chr(10))[0]}", "delete it to begin again") from error
    if saved.get("key") != key:
        raise UserInputError(f"{path} is of another training", "choose another --output, or delete the file to begin again")
    return saved


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
    """Trains a network in place.

    Args:
        network: what is optimised.
        loss: see :data:`Loss`.
        recipe: batch, rate, average and clipping.
        examples: how many there are.
        steps: of the optimiser.
        state: file with weights, optimiser and step; if it is there, training goes on from it.
        key: of the training; a file of another one is refused.
        seed: of all draws.
        name: shown in progress lines.
        check: called after each step; raises StoppedError to stop, and what was done is saved first.

    Returns:
        The weights to keep, the averaged ones where the recipe has an average, and the running mean of the loss.

    Raises:
        UserInputError: the file is of another training, or not readable.
        StoppedError: as ``check`` raises it.
    """
    device = next(network.parameters()).device
    network.train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    first, shown = 0, 0.0
    if state.exists():
        saved = _read(state, key, device)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first, shown = saved["average"], saved["step"], saved["loss"]
        _tell(f"{name}: goes on from step {first}")
    rows = Rows(examples, recipe.batch, seed)
    begin = told = kept = time.monotonic()

    def keep(step: int) -> None:
        parts = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        _write({**parts, "step": step, "loss": shown, "key": key}, state)

    for step in range(first, steps):
        torch.manual_seed(seed * 1_000_003 + step)  # dropout draws from the global generator
        optimiser.zero_grad(set_to_none=True)
        value = loss(rows.at(step), generator_at(seed, step))
        value.backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimiser.step()
        _follow(average, network, min(recipe.ema, (step + 1) / (step + 10)))
        shown = float(value.detach()) if step == 0 else 0.99 * shown + 0.01 * float(value.detach())
        now = time.monotonic()
        if now - told > TELL_SECONDS:
            _tell(f"{name}: step {step + 1} of {steps}, loss {shown:.4g}, {(now - begin) / (step + 1 - first):.3g} s a step")
            told = now
        try:
            check()
        except StoppedError:
            keep(step + 1)
            raise
        if now - kept > SAVE_SECONDS or step + 1 == steps:
            keep(step + 1)
            kept = now
    return average, shown


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    """Moves the average towards the weights; without decay it is a copy of them. Counts and the like are copied."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and decay:
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
