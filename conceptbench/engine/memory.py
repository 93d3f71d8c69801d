"""What to do when memory runs out: go on with half as many images at once."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "out of memory" in str(error).lower())
    )


def in_halves(make: Callable[[list[int]], None], indices: list[int], note: Callable[[str], None]) -> None:
    """Does a batch; where memory runs out, its halves one after the other, down to single images.

    Args:
        make: does a batch of indices.
        indices: the batch.
        note: told once that it happened.
    """
    try:
        make(indices)
        return
    except Exception as error:
        if not is_out_of_memory(error) or len(indices) == 1:
            raise
    # outside of the handler, where the error's traceback does not hold the batch's tensors any more
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    note(f"out of memory with {len(indices)} images at once: went on with halves; --batch {max(1, len(indices) // 2)} avoids the attempt")
    middle = len(indices) // 2
    for half in (indices[:middle], indices[middle:]):
        in_halves(make, half, note)
