"""What a base is: its identity, before and apart from its networks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from conceptbench.core.files import canonical_json


@dataclass(frozen=True)
class BaseInfo:
    """What a base is.

    Attributes:
        id: registered name, hub id or folder name.
        family: sd1, sd2 or sdxl.
        revision: of the hub repository, or empty.
        components: component -> sha256 of its weights.
        notes: what differs from the stock pipeline, e.g. that its safety checker is off.
        size: pixels a side of its images.
        tier: ``mini`` or ``paper``: which presets and judges are the usual ones.
        precision: of sampling: ``fp32``, ``bf16`` or ``fp16`` (autocast), with ``-compiled`` behind it where the denoiser is.
    """

    id: str
    family: str
    revision: str
    components: dict[str, str]
    notes: tuple[str, ...] = ()
    tier: str = "paper"
    size: int = 32
    precision: str = "fp32"

    @functools.cached_property
    def components_json(self) -> str:
        """The components as canonical JSON."""
        return canonical_json(self.components)
