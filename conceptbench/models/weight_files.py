"""Reads the tensors of a weights file that somebody else made, without ever running anything in it.

The format is told by the first bytes, not by the name. Pickles are read with ``weights_only=True``: torch then builds tensors
and plain containers and refuses everything else.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from conceptbench.core.errors import UserInputError

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Names of networks that people use as prefixes and as keys."""
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
WRAPPERS = ("state_dict", "model", "module", "params", "weights")
KNOWN = "known: safetensors, and what torch.save writes (.pt, .pth, .bin, .ckpt)"
AGAIN = "download or save it again"
SCALAR = np.float64(0).__reduce__()[0]
# Lightning writes numpy numbers beside the weights; these build numbers only (the second name is that of numpy 1)
NUMBERS: list[Any] = [SCALAR, (SCALAR, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("float64")), type(np.dtype("int64"))]


@dataclass(frozen=True)
class WeightFile:
    """What a file holds.

    Attributes:
        tensors: by name, as stored (any dtype); names of nested dicts are joined by dots.
        metadata: the header of a safetensors file.
        ignored: names beside the weights that were not read, e.g. of optimiser states.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def read_weights(path: Path) -> WeightFile:
    """Reads a file.

    Raises:
        UserInputError: it is empty, truncated, of an unknown format, holds no named tensors, or is a pickle with code in it
            (which is named and not run).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if size == 0:
        raise UserInputError(f"{path} is empty (0 bytes)", AGAIN)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < 2**32:
        return _safetensors(path, size, length)
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        return _pickle(path, zipped=head.startswith(b"PK"))
    raise UserInputError(f"{path} is of an unknown format: {_what(head)}", KNOWN)


def _what(head: bytes) -> str:
    """What the first bytes of a foreign file look like, for the message."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights themselves (get them with `git lfs pull`)"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the download itself"
    if head.startswith(b"GGUF"):
        return "GGUF, quantised weights"
    return f"it begins with {head[:8]!r}"


def _safetensors(path: Path, size: int, length: int) -> WeightFile:
    if size < 8 + length:
        raise UserInputError(f"{path} is truncated: its header of {length} bytes does not fit in {size} bytes", AGAIN)
    try:
        with safe_open(path, "pt") as file:
            return WeightFile({k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {}))  # noqa: SIM118 - not a mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise UserInputError(f"{path} is truncated or damaged: {error}", AGAIN) from error


def _pickle(path: Path, *, zipped: bool) -> WeightFile:
    with warnings.catch_warnings(), torch.serialization.safe_globals(NUMBERS):  # type: ignore[no-untyped-call]
        warnings.simplefilter("ignore")  # torch's advice on plain pickles
        if zipped:
            _refuse_code(path, _unsafe_globals(path))
        try:
            # a mapped file is not read into memory until a tensor is looked at
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            _refuse_code(path, sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error)))))
            raise UserInputError(f"{path} is no file of weights that can be read without running it: {_first_line(error)}", KNOWN) from error
        except Exception as error:  # a parser of foreign bytes fails in many ways; each is the file's fault
            raise UserInputError(f"{path} is truncated or damaged, or was not written by torch.save: {error!r}", f"{AGAIN}; {KNOWN}") from error
    if not isinstance(content, Mapping):
        raise UserInputError(f"{path} holds a {type(content).__name__}, not tensors by name", "save a state dict: torch.save(unet.state_dict(), path)")
    tensors, ignored = _flat(content)
    if not tensors:
        raise UserInputError(f"{path} holds no tensors; its keys: {some(content)}", "save a state dict: torch.save(unet.state_dict(), path)")
    return WeightFile(tensors, {}, ignored)


def _unsafe_globals(path: Path) -> list[str]:
    """Functions and classes that the pickle would call, found without running it; empty if it cannot be taken apart."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file: loading it says so
        return []


def _refuse_code(path: Path, names: list[str]) -> None:
    if names:
        hint = "nothing was run. Where you trust it, load it and save its weights alone: safetensors.torch.save_file(unet.state_dict(), path)"
        raise UserInputError(f"{path} is a pickle that wants to call {', '.join(names)}: refused", hint)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _flat(content: Mapping[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by dotted name, without wrappers; and the names of what was left out."""
    parts = {k: v for k, v in content.items() if isinstance(v, Mapping)}
    wrapper = next((w for w in WRAPPERS if w in parts), None)
    if wrapper is not None:
        tensors, ignored = _flat(parts[wrapper])
        return tensors, [*ignored, *(str(k) for k in content if k != wrapper)]
    named = [c for c in COMPONENTS if c in parts]
    tensors = {}
    ignored = []
    for key, value in content.items():
        if named and key not in named:
            ignored.append(str(key))
        elif isinstance(value, Tensor):
            tensors[str(key)] = value.detach()
        elif isinstance(value, Mapping):
            inner, left = _flat(value)
            tensors.update({f"{key}.{k}": t for k, t in inner.items()})
            ignored.extend(f"{key}.{k}" for k in left)
        else:
            ignored.append(str(key))
    return tensors, ignored


def some(names: Iterable[Any], limit: int = 3) -> str:
    """A few of many names, for a message."""
    shown = [str(n) for n in names]
    return ", ".join(shown[:limit]) + (f" ... ({len(shown)} in all)" if len(shown) > limit else "") if shown else "none"
