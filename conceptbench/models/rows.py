"""Forwards in blocks of a fixed number of rows, so that on a CPU a row's result does not depend on its company.

Matrix libraries choose their kernels by the size of a batch, and different kernels round differently. With one size for
every forward the same row gives the same bytes at any position, beside any others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TEXT_ROWS = 16
IMAGE_ROWS = 16


def padded(x: Tensor, rows: int) -> Tensor:
    """The tensor with its last row repeated until it has ``rows`` rows."""
    missing = rows - len(x)
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


def in_blocks(forward: Callable[..., Tensor], rows: int, *inputs: Tensor, fill: bool = True) -> Tensor:
    """Applies ``forward`` to blocks of ``rows`` rows and puts the results together; never more at once, so that memory is bounded.

    Args:
        forward: takes the inputs' blocks, gives a tensor with as many rows.
        rows: rows a block.
        inputs: tensors with the same first axis, at least one row.
        fill: pad the last block to as many rows, so that a row does not depend on how many there are.
    """
    parts = []
    for start in range(0, len(inputs[0]), rows):
        block = [x[start : start + rows].contiguous() for x in inputs]  # one memory layout too: another one rounds differently
        parts.append(forward(*(padded(x, rows) if fill else x for x in block))[: len(block[0])])
    return torch.cat(parts) if len(parts) > 1 else parts[0]
