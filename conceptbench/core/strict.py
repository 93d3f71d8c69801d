"""What every schema of a manifest is built on."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen, and every unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Preset(Strict):
    """A protocol as somebody used it.

    Attributes:
        judge: registered name, where the protocol needs a certain one.
        options: of the metric or judge.
        note: whose it is, and where it differs from others.
    """

    judge: str | None = None
    options: dict[str, Any] = {}
    note: str
