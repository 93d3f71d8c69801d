"""The one training loop of all erasers that train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
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
        accumulate: gradients add up over all steps, because SepME's released code never clears them.
    """

    parameters: str = "xattn"
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=1, ge=1)
    lr: float = Field(default=1e-5, gt=0)
    optimiser: Literal["adam", "adamw"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = None
    accumulate: bool = False


@dataclass(frozen=True)
class Terms:
    """A loss with what stands beside it in the training curve.

    Attributes:
        total: the scalar that is minimised.
        parts: named values of the step: numbers or scalars.
        prompt: (k, width) a prompt that is being learned, for whoever watches the training.
    """

    total: Tensor
    parts: Mapping[str, float | Tensor] = field(default_factory=dict)
    prompt: Tensor | None = None


Loss = Callable[[int], "Tensor | Terms"]


@dataclass(frozen=True)
class Player:
    """Parameters with a loss of their own, one gradient step at a time: methods with two of them let them take turns.

    Attributes:
        parameters: by name; leaves that require gradients.
        loss: of a step, from 0; it draws from ``ctx.generator`` and keeps no state of its own.
        lr: learning rate; None for the config's.
    """

    parameters: Mapping[str, Tensor]
    loss: Loss
    lr: float | None = None


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


def train(
    parameters: Mapping[str, Tensor],
    loss: Loss,
    config: TrainingConfig,
    ctx: Context,
    *,
    before: Sequence[Player] = (),
    state: Mapping[str, Tensor] | None = None,
    after: Callable[[int, Terms], bool] = lambda _step, _terms: False,
    showing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Tensor]:
    """Minimises ``loss(step)`` over the parameters; goes on where an interrupted training stopped, to the same bytes.

    Args:
        parameters: inside :func:`trainable`, or leaves of the method's own.
        loss: one scalar a step; it draws from ``ctx.generator`` and keeps no state of its own but in ``state``.
        config: steps, rate and optimiser.
        ctx: hears of progress and keeps checkpoints.
        before: players that make a gradient step each before the main one, in every step.
        state: the method's own tensors (an average, a flag), changed in place by ``loss`` and ``after``; saved and restored.
        after: called after each step with its terms; True ends the training.
        showing: around the report of each step, for methods whose parameters are not the base's own: inside, the base answers as the
            step's values make it, because a suite may look at its images by then.

    Returns:
        The trained values by name.
    """
    state, stopped = dict(state or {}), torch.zeros(())
    run = _Run([*before, Player(parameters, loss)], config, {**state, "stopped": stopped})
    saved = ctx.saved()
    if saved is not None:
        run.unpack(saved.tensors)
    for step in range(saved.step if saved else 0, config.steps):
        if bool(stopped):
            break
        terms, norm = run.step(step)
        if after(step, terms):
            stopped.fill_(1)
        total = step + 1 if bool(stopped) else config.steps  # an early stop is the last point of the curve
        with showing():
            ctx.progress(step, total, float(terms.total), prompt=terms.prompt, **{k: float(v) for k, v in terms.parts.items()}, gradient_norm=norm)
        ctx.checkpoint(step + 1, run.pack)
    return values_of(parameters)


class _Run:
    """Players with an optimiser each, and the state of a training as flat tensors."""

    def __init__(self, players: Sequence[Player], config: TrainingConfig, state: Mapping[str, Tensor]) -> None:
        self.players, self.config, self.state = players, config, state
        kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
        self.optimisers = [kind(list(p.parameters.values()), lr=p.lr or config.lr, weight_decay=config.weight_decay) for p in players]

    def step(self, step: int) -> tuple[Terms, float]:
        """One gradient step of each player; the last one's terms, detached, and the norm of its gradient."""
        for player, optimiser in zip(self.players, self.optimisers, strict=True):
            own = list(player.parameters.values())
            kept = [p.grad for p in own] if self.config.accumulate else [None] * len(own)
            value = player.loss(step)
            terms = value if isinstance(value, Terms) else Terms(value)
            gradients = torch.autograd.grad(terms.total, own, allow_unused=True)
            for parameter, gradient, earlier in zip(own, gradients, kept, strict=True):
                parameter.grad = gradient if earlier is None else earlier if gradient is None else earlier + gradient
            norm = nn.utils.clip_grad_norm_(own, self.config.clip or float("inf"))
            optimiser.step()
        prompt = None if terms.prompt is None else terms.prompt.detach()
        parts = {k: v.detach() if isinstance(v, Tensor) else v for k, v in terms.parts.items()}
        return Terms(terms.total.detach(), parts, prompt), float(norm)

    def pack(self) -> dict[str, Tensor]:
        """Values, the optimisers' states of each parameter by its number, gradients where they add up, and the method's own state."""
        found = {f"state/{n}": t.detach() for n, t in self.state.items()}
        for i, (player, optimiser) in enumerate(zip(self.players, self.optimisers, strict=True)):
            found |= {f"{i}/value/{n}": p.detach() for n, p in player.parameters.items()}
            found |= {f"{i}/optimiser/{j}/{n}": torch.as_tensor(v) for j, own in optimiser.state_dict()["state"].items() for n, v in own.items()}
            if self.config.accumulate:
                found |= {f"{i}/gradient/{n}": p.grad for n, p in player.parameters.items() if p.grad is not None}
        return found

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what :meth:`pack` gave."""
        for name, tensor in self.state.items():
            tensor.copy_(tensors[f"state/{name}"])
        for i, (player, optimiser) in enumerate(zip(self.players, self.optimisers, strict=True)):
            state: dict[int, dict[str, Tensor]] = {}
            for name, parameter in player.parameters.items():
                parameter.data = tensors[f"{i}/value/{name}"].to(parameter)
                gradient = tensors.get(f"{i}/gradient/{name}")
                parameter.grad = None if gradient is None else gradient.to(parameter)
            for name, tensor in tensors.items():
                if name.startswith(f"{i}/optimiser/"):
                    number, key = name.removeprefix(f"{i}/optimiser/").split("/", 1)
                    state.setdefault(int(number), {})[key] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
