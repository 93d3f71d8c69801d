"""Atomic files, canonical JSON and hashes. The only module that opens a file for writing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import math
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from conceptbench.core.errors import WriteError


def _plain(value: Any) -> Any:
    """Makes a value JSON: models become dicts, tuples lists, whole floats stay floats; NaN is refused."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"not a finite number: {value}")
    return value


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN. Keys and checksums are made of it."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Any) -> str:
    """The same values for people to read."""
    return json.dumps(_plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_bytes(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def key_of(value: Any) -> str:
    """The content key of a value: sha256 of its canonical JSON, 64 hex digits."""
    return sha256_bytes(canonical_json(value).encode())


def read_packed(path: Path) -> str:
    """The text of a UTF-8 file, which may be packed (``.gz``).

    Raises:
        OSError: it is not there, or its archive is damaged.
        UnicodeDecodeError: it is no text.
    """
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it replaces ``path``, flushed to disk, else it is removed.

    Raises:
        WriteError: the disk is full, the folder is read-only and the like; it names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
    except OSError as error:
        raise write_error(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> WriteError:
    """What to tell about a file that could not be written."""
    hint = {
        errno.ENOSPC: "free some space, or put the store on another disk with --store; run again to go on: what is written is kept",
        errno.EACCES: "make the folder writable, or choose another one with --store or --output",
        errno.EROFS: "the disk is read-only: choose another folder with --store or --output",
    }.get(error.errno or 0, "run again to go on: what is written is kept")
    return WriteError(f"cannot write {path}: {error.strerror or error}", hint)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that it is either whole or not there."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def append_line(path: Path, text: str) -> None:
    """Adds one line to a log in a single write, so that lines of several processes never mix; a torn last line is the reader's to drop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (("\n" if torn else "") + text + "\n").encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def locked(path: Path, while_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds an exclusive lock on a file while inside; it is free again when the process ends, however it ends.

    Where the file system knows no locks nothing is held: all results are written whole and under their content's key, so the
    worst is that something is made twice.

    Args:
        path: the file; it stays.
        while_waiting: called a few times a second while another process holds the lock; may raise to give up.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)  # another user of the store must be able to lock it, too
    except OSError as error:
        raise write_error(path, error) from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                while_waiting()
                time.sleep(0.2)
                continue
            except OSError:
                pass  # no locks here
            break
        yield
    finally:
        os.close(handle)


def safe_name(text: str) -> str:
    """A text as a part of a file name: letters, digits, dots and dashes; where that loses something, with a hash of the text."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".")[:80]
    return clean if clean == text else f"{clean}-{sha256_bytes(text.encode())[:8]}"


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; line ends are written as they are."""
    write_bytes(path, text.encode())
