"""Continual learning for erasers: Fisher information, elastic weight consolidation, and the loss that Selective Amnesia makes of them.

All but :func:`fisher_of` asks for an objective per example only, whatever the model is (the negative ELBO of an autoencoder).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from conceptbench.erasers.shared.loop import trainable
from conceptbench.erasers.shared.references import References
from conceptbench.models.base import Base

FISHER_ROWS = 10
"""Timesteps of one backward pass for the Fisher information: bounds the memory, changes nothing but rounding."""


def fisher_information(parameters: Mapping[str, Tensor], elbo: Callable[[int], Iterable[Tensor]], images: int) -> dict[str, Tensor]:
    """The diagonal F_i = mean over x of (d ELBO(x) / d theta_i)^2 (Heng and Soh 2023, section 3; Kirkpatrick et al. 2017).

    The ELBO of an image is a sum over timesteps, so that its gradient is squared after the sum and not before.

    Args:
        parameters: by name; leaves that require gradients.
        elbo: of image i, as scalars that add up to it; each is differentiated by itself, which bounds the memory.
        images: how many, from 0.

    Returns:
        One tensor a parameter, of its shape and dtype, at least 0; zero where the ELBO does not depend on it.
    """
    leaves = list(parameters.values())
    fisher = [torch.zeros_like(p, requires_grad=False) for p in leaves]
    for i in range(images):
        sums = [torch.zeros_like(p, requires_grad=False) for p in leaves]
        for part in elbo(i):
            for total, gradient in zip(sums, torch.autograd.grad(part, leaves, allow_unused=True), strict=True):
                if gradient is not None:
                    total.add_(gradient)
        for f, total in zip(fisher, sums, strict=True):
            f.addcmul_(total, total, value=1 / images)
    return dict(zip(parameters, fisher, strict=True))


def fisher_of(
    base: Base, images: References, count: int, group: str, timesteps: int, generator: torch.Generator, tick: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """The Fisher information of a base's own objective, summed over evenly spaced timesteps and scaled up to all of them.

    Args:
        base: as it is.
        images: clean latents with their prompts.
        count: how many of them, drawn at random.
        group: of parameters.
        timesteps: how many of the base's.
        generator: of the choice, and of the noise, one for each image and timestep.
        tick: called once an image.
    """
    total = base.timesteps
    times = (2 * torch.arange(timesteps) + 1) * total // (2 * timesteps)
    chosen = torch.randperm(len(images.texts), generator=generator)[:count].tolist()

    def elbo(i: int) -> Iterator[Tensor]:
        tick()
        for t in times.split(FISHER_ROWS):
            x = images.latents[chosen[i]].expand(len(t), *images.latents.shape[1:])
            encoded = base.encode([images.texts[chosen[i]]] * len(t)).to(base.device, base.dtype)
            yield base.objective(x, encoded, base.draws(x, generator, t)).sum() * (total / timesteps)

    with trainable(base, group) as parameters:
        return fisher_information(parameters, elbo, len(chosen))


def ewc_penalty(parameters: Mapping[str, Tensor], originals: Mapping[str, Tensor], fisher: Mapping[str, Tensor]) -> Tensor:
    """sum_i F_i / 2 (theta_i - theta*_i)^2, a scalar (Heng and Soh 2023, eq. 1). All by parameter name; originals are not trained."""
    return torch.stack([(fisher[n] * (p - originals[n]).square()).sum() for n, p in parameters.items()]).sum() / 2


def selective_amnesia_loss(
    forget: Tensor, replay: Tensor | None, penalty: Tensor | None, *, gamma: float, lam: float, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """E[l(x_q, c_f)] + gamma E[l(x_r, c_r)] + lambda penalty: what Heng and Soh 2023, eq. 4, maximise, with the other sign.

    Args:
        forget: (B,) objective of surrogates under the forgotten condition.
        replay: (B',) objective of the base's own examples under theirs; None for no replay.
        penalty: scalar of :func:`ewc_penalty`; None for no penalty.
        gamma: weight of replay, 1 in the paper.
        lam: lambda.
        reduction: ``sum`` over the batch in place of the mean, as in the authors' code of the autoencoder: lambda means less then.

    Returns:
        A scalar.
    """
    reduce = torch.mean if reduction == "mean" else torch.sum
    total = reduce(forget)
    if replay is not None:
        total = total + gamma * reduce(replay)
    return total if penalty is None else total + lam * penalty
