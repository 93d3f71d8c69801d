"""Padding of batches: on a CPU in fp32 a forward over a multiple of four rows gives a row the same bytes in any company."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 4


def padded(x: Tensor) -> Tensor:
    """The tensor with its last row repeated up to a multiple of :data:`ROWS`."""
    missing = -len(x) % ROWS
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
