"""What a sample is conditioned on, and what a family's encoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Condition:
    """What one image is asked to show.

    Attributes:
        text: the prompt.
        negative: the prompt for the unconditional half of classifier-free guidance.
    """

    text: str
    negative: str = ""

    def unconditional(self) -> Condition:
        """The condition of the unconditional half."""
        return replace(self, text=self.negative, negative="")


@dataclass(frozen=True)
class Encoded:
    """Encoded conditions, ready for the denoiser.

    Attributes:
        hidden: (N, L, D) float32 token embeddings.
        pooled: (N, P), where the family has them (SDXL).
    """

    hidden: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: object) -> Encoded:
        def pick(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index]  # type: ignore[index]

        return Encoded(self.hidden[index], pick(self.pooled))  # type: ignore[index]

    def expand(self, rows: int) -> Encoded:
        """One encoded condition repeated for ``rows`` rows."""
        return self[torch.zeros(rows, dtype=torch.long)]

    def padded(self, rows: int) -> Encoded:
        """The last row repeated until there are ``rows``."""
        missing = rows - len(self)
        return Encoded.cat([self, self[-1:].expand(missing)]) if missing else self

    @classmethod
    def cat(cls, parts: Sequence[Encoded]) -> Encoded:
        """Parts one below the other."""

        def join(tensors: list[Tensor | None]) -> Tensor | None:
            present = [t for t in tensors if t is not None]
            return torch.cat(present) if present else None

        hidden = torch.cat([p.hidden for p in parts])
        return cls(hidden, join([p.pooled for p in parts]))

    def to(self, device: torch.device, dtype: torch.dtype) -> Encoded:
        """The same on a device and in a dtype."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, dtype)

        return Encoded(self.hidden.to(device, dtype), move(self.pooled))
