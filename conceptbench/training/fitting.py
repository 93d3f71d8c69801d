"""Training of models from the beginning: resumable, on a CPU reproducible to the byte from a seed, with an average of the weights.

Erasers have a loop of their own (``erasers/shared/loop.py``): they change a part of a trained model and are timed and stored by a run.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conceptbench.core.errors import StoppedError, UserInputError
from conceptbench.core.files import atomic_path

SAVE_SECONDS = 60.0
TELL_SECONDS = 10.0

Loss = Callable[[int, torch.Generator], Tensor]
"""Scalar loss of a step, from its number and a generator that is fresh for it."""


@dataclass(frozen=True)
class Fitting:
    """How a network is trained.

    Attributes:
        steps: of the optimiser.
        optimiser: makes it for parameters.
        rate: learning rate of a step; None: the optimiser's own throughout.
        ema: decay of the average of the weights that is kept; 0: the last weights are.
        clip: largest norm of the gradient; None for no limit.
    """

    steps: int
    optimiser: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    rate: Callable[[int], float] | None = None
    ema: float = 0.0
    clip: float | None = None


def generator_at(seed: int, step: int) -> torch.Generator:
    """The generator of one step: a resumed training draws what an uninterrupted one would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def fit(
    network: nn.Module, loss: Loss, how: Fitting, *, state: Path, key: str, seed: int, name: str, check: Callable[[], None] = lambda: None
) -> tuple[dict[str, Tensor], float]:
    """Trains a network in place.

    Args:
        network: what is optimised; everything that ``loss`` trains must be in it, and require gradients.
        loss: see :data:`Loss`.
        how: length, optimiser, rates, average and clipping.
        state: file with weights, optimiser and step; if it is there, training goes on from it.
        key: of the training; a file of another one is refused.
        seed: of all draws.
        name: shown in progress lines.
        check: called after each step; raises StoppedError to stop, and what was done is saved first.

    Returns:
        The weights to keep (buffers included), the averaged ones where there is an average, and the running mean of the loss.

    Raises:
        UserInputError: the file is of another training, or not readable.
        StoppedError: as ``check`` raises it.
    """
    device = next(network.parameters()).device
    network.train()
    optimiser = how.optimiser(network.parameters())
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    first, shown = 0, 0.0
    if state.exists():
        saved = _read(state, key, device)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        average, first, shown = saved["average"], saved["step"], saved["loss"]
        _tell(f"{name}: goes on from step {first}")
    begin = told = kept = time.monotonic()

    def keep(step: int) -> None:
        parts = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        with atomic_path(state) as temporary:
            torch.save({**parts, "step": step, "loss": shown, "key": key}, temporary)

    for step in range(first, how.steps):
        torch.manual_seed(seed * 1_000_003 + step)  # dropout draws from the global generator
        if how.rate is not None:
            optimiser.param_groups[0]["lr"] = how.rate(step)
        optimiser.zero_grad(set_to_none=True)
        value = loss(step, generator_at(seed, step))
        value.backward()  # type: ignore[no-untyped-call]
        if how.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), how.clip)
        optimiser.step()
        _follow(average, network, min(how.ema, (step + 1) / (step + 10)))
        shown = float(value.detach()) if step == 0 else 0.99 * shown + 0.01 * float(value.detach())
        now = time.monotonic()
        if now - told > TELL_SECONDS:
            _tell(f"{name}: step {step + 1} of {how.steps}, loss {shown:.4g}, {(now - begin) / (step + 1 - first):.3g} s a step")
            told = now
        try:
            check()
        except StoppedError:
            keep(step + 1)
            raise
        if now - kept > SAVE_SECONDS or step + 1 == how.steps:
            keep(step + 1)
            kept = now
    return average, shown


def _read(path: Path, key: str, device: torch.device) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise UserInputError(f"cannot read {path}: {str(error).partition(chr(10))[0]}", "delete it to begin again") from error
    if saved.get("key") != key:
        raise UserInputError(f"{path} is of another training", "choose another --output, or delete the file to begin again")
    return saved


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
