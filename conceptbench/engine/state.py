"""Files of tensors and values with a checksum over both: trainings that go on, findings of probes, trained judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from conceptbench.core.files import atomic_path, canonical_json, key_of
from conceptbench.models.families import hash_tensors


def save_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Writes tensors and values as one safetensors file with a checksum, whole or not at all."""
    kept = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(kept, temporary, metadata={"state": canonical_json(values), "sha256": _checksum(kept, values)})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What :func:`save_state` wrote; None if it is not there or damaged, and the work is done again."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            values, checksum = json.loads(header["state"]), header["sha256"]
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
    return (tensors, values) if checksum == _checksum(tensors, values) else None


def _checksum(tensors: dict[str, Tensor], values: dict[str, Any]) -> str:
    return key_of({"tensors": hash_tensors(tensors), "values": values})
