"""Directions in the space of the text encoder's states that some prompts do not have: changes of K and V along them leave exactly these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base


@dataclass(frozen=True)
class NullSpace:
    """An orthonormal basis S of what is orthogonal to every row of a matrix A.

    Attributes:
        basis: (width, width - rank) float64, unit columns. Any rotation of them spans the same: coefficients are of this basis only.
        residual: the largest absolute entry of A S.
    """

    basis: Tensor
    residual: float

    @property
    def rank(self) -> int:
        """Of A."""
        return self.basis.shape[0] - self.basis.shape[1]


def null_space(states: Tensor) -> NullSpace:
    """The null space of A from its singular values in float64.

    States of padding are nearly collinear: a tolerance of float32 would drop directions of A, and protection would only be approximate.
    Rows that are there twice (the start token's state is the same in every prompt) span nothing new, and are left out.

    Args:
        states: (rows, width) A, of any float dtype.
    """
    a = states.double().unique(dim=0)
    _, values, right = torch.linalg.svd(a, full_matrices=True)
    rank = int((values > values[:1] * max(a.shape) * torch.finfo(torch.float64).eps).sum())
    basis = right[rank:].T.contiguous()
    return NullSpace(basis, float((a @ basis).abs().max()) if basis.numel() else 0.0)


def protecting(base: Base, target: str, texts: Sequence[str]) -> NullSpace:
    """The null space of A = [states of the empty prompt; of every text] (Zhao et al. 2024, eq. 8).

    Args:
        base: encodes.
        target: whose change is to leave the texts alone, for the error.
        texts: prompts to protect, besides the empty one as guidance and as users give it.

    Raises:
        UserInputError: the texts leave no direction free.
    """
    states = torch.cat([base.encode_unconditional([""]).hidden, base.encode(["", *texts]).hidden]).double()
    length, width = states.shape[1:]
    found = null_space(states.flatten(0, 1))
    if found.rank >= width:
        # the start token's state is the same in every prompt, so each prompt after the empty one brings at most length - 1 new rows
        fit = max(0, (width - 1 - length) // (length - 1))
        raise UserInputError(
            f"{target!r} cannot be erased apart from {len(texts)} other prompts: with the empty one they span {found.rank} of the text encoder's"
            f" {width} dimensions, and none is left for the change; a prompt has up to {length} states, so {fit} other prompts always fit",
            "erase fewer targets together, use fewer templates (texts) or phrases, or set protect to none",
        )
    return found
