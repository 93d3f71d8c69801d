"""The one training loop of all erasers that train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, EraserConfig
from conceptbench.models.erasure import values_of


class TrainingConfig(EraserConfig):
    """Options that every trained eraser has.

    Attributes:
        parameters: named group of the denoiser's parameters that are trained.
        steps: optimiser steps.
        batch: samples a step.
        lr: learning rate.
        optimiser: ``adam`` or ``adamw``.
        weight_decay: of adamw.
        clip: largest gradient norm; None for no clipping.
    """

    parameters: str = "xattn"
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=1, ge=1)
    lr: float = Field(default=1e-5, gt=0)
    optimiser: Literal["adam", "adamw"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = None


@contextmanager
def trainable(base: Base, group: str) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters of a group, ready to be trained on copies of their values; on leaving the base is as it was."""
    parameters = base.parameters(group)
    originals = {n: p.data for n, p in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = originals[name]


def train(parameters: dict[str, nn.Parameter], loss: Callable[[int], Tensor], config: TrainingConfig, ctx: Context) -> dict[str, Tensor]:
    """Minimises ``loss(step)`` over the parameters; goes on where an interrupted training stopped, to the same bytes.

    Args:
        parameters: inside :func:`trainable`.
        loss: one scalar a step; it draws from ``ctx.generator`` and keeps no state of its own.
        config: steps, rate and optimiser.
        ctx: hears of progress and keeps checkpoints.

    Returns:
        The trained values by name.
    """
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    optimiser = kind(list(parameters.values()), lr=config.lr, weight_decay=config.weight_decay)
    saved = ctx.saved()
    if saved is not None:
        unpack(saved.tensors, parameters, optimiser)
    for step in range(saved.step if saved else 0, config.steps):
        optimiser.zero_grad(set_to_none=True)
        value = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(list(parameters.values()), config.clip or float("inf"))
        optimiser.step()
        ctx.progress(step, config.steps, float(value.detach()), gradient_norm=float(norm))
        ctx.checkpoint(step + 1, lambda: pack(parameters, optimiser))
    return values_of(parameters)


def pack(parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of a training as flat tensors: values, and the optimiser's state of each parameter by its number."""
    state = optimiser.state_dict()["state"]
    return {
        **{f"value/{n}": p.detach() for n, p in parameters.items()},
        **{f"optimiser/{i}/{n}": torch.as_tensor(v) for i, values in state.items() for n, v in values.items()},
    }


def unpack(tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    """Puts back what :func:`pack` gave."""
    for name, parameter in parameters.items():
        parameter.data = tensors[f"value/{name}"].to(parameter)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser/"):
            _, number, key = name.split("/", 2)
            state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
