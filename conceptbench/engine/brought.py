"""Weights that were made elsewhere, and sums of such weights, as entries of a line-up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.files import key_of, sha256_file
from conceptbench.core.registry import source_hash
from conceptbench.engine.lineup import CHECKPOINT, Entry
from conceptbench.models.base import Base
from conceptbench.models.checkpoints import load_checkpoint, missing_checkpoint
from conceptbench.models.combine import as_additive, combine, parse
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Supports
from conceptbench.models.erasure import Erasure


class BroughtConfig(EraserConfig):
    """What identifies weights made elsewhere.

    Attributes:
        files: name -> name of the file or folder, without its place.
        sha256: name -> of its content.
        expression: how they are combined; empty for one alone.
    """

    files: dict[str, str]
    sha256: dict[str, str]
    expression: str = ""


class Brought(Eraser[BroughtConfig]):
    """Reads a checkpoint, or sums several; the paths are the class's, so that no result depends on where a file lies."""

    name = CHECKPOINT
    summary = "weights made elsewhere"
    Config: ClassVar[type[EraserConfig]] = BroughtConfig
    supports = Supports(restore=True, recover=True)  # whether its file can is seen when it is read
    paths: ClassVar[Mapping[str, Path]] = {}

    def erase(self, base: Base, request: EraseRequest, config: BroughtConfig, ctx: Context) -> Erasure:  # noqa: ARG002 - a file knows no request
        """The checkpoint as an erasure of this base."""
        loaded = {}
        for name, path in self.paths.items():
            loaded[name] = load_checkpoint(path, base)
            if content_hash(path) != config.sha256[name]:
                raise UserInputError(f"the checkpoint {path} changed after the run began", "wait until it is written, and run again")
        if not config.expression:
            return next(iter(loaded.values()))
        return combine(config.expression, {n: as_additive(e, base) for n, e in loaded.items()})


def content_hash(path: Path) -> str:
    """sha256 of a file, or of the names and contents of all files of a folder.

    Raises:
        UserInputError: it is not there.
    """
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise missing_checkpoint(path)
    return key_of({str(p.relative_to(path)): sha256_file(p) for p in sorted(path.rglob("*")) if p.is_file()})


def named_paths(checkpoints: Sequence[str]) -> dict[str, Path]:
    """``NAME=PATH`` or ``PATH`` (named by its stem) to name -> path.

    Raises:
        UserInputError: a name is used twice or is none.
    """
    found: dict[str, Path] = {}
    for text in checkpoints:
        name, given, path = text.partition("=")
        place = Path(path if given else name)
        name = name if given else re.sub(r"[^A-Za-z0-9._-]+", "-", place.stem)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == "base":
            raise UserInputError(f"{name!r} cannot name a checkpoint", "letters, digits, dots and dashes, and not `base`: --checkpoint my-method=FILE")
        if name in found:
            raise UserInputError(f"two checkpoints are called {name!r}", "name them apart: --checkpoint first=FILE --checkpoint second=FILE")
        found[name] = place
    return found


def _entry(label: str, paths: Mapping[str, Path], expression: str = "") -> Entry:
    kind = type("Brought", (Brought,), {"paths": dict(paths)})
    config = BroughtConfig(files={n: p.name for n, p in paths.items()}, sha256={n: content_hash(p) for n, p in paths.items()}, expression=expression)
    return Entry(label, CHECKPOINT, kind, config, source_hash([Brought]))


def checkpoint_entries(checkpoints: Sequence[str], combinations: Sequence[str]) -> list[Entry]:
    """Entries of a line-up: one a checkpoint, then one a combination such as ``a+b-c`` of their names.

    Raises:
        UserInputError: a file is not there, or a combination has a name that no checkpoint has.
    """
    paths = named_paths(checkpoints)
    entries = [_entry(name, {name: path}) for name, path in paths.items()]
    for expression in combinations:
        if not paths:
            raise unknown_name("checkpoint in the combination", expression, [])
        parse(expression, paths)
        entries.append(_entry(expression.replace(" ", ""), paths, expression))
    labels = [e.label for e in entries]
    twice = sorted({n for n in labels if labels.count(n) > 1})
    if twice:
        raise UserInputError(f"two rows would be called {twice[0]!r}", "give the checkpoint another name: --checkpoint NAME=FILE")
    return entries
