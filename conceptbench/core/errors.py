"""Errors that teach: each says what was wrong, the value, what is allowed, the nearest match and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_BUG, EXIT_BAD_INPUT, EXIT_FAILED_UNITS, EXIT_NOT_COMPARABLE = 0, 1, 2, 3, 4


class ConceptBenchError(Exception):
    """Base of all errors that ConceptBench raises on purpose.

    Attributes:
        message: what was wrong, with the value.
        hint: what to do about it; may be empty.
        exit_code: what the command line exits with.
    """

    exit_code = EXIT_BUG

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class UserInputError(ConceptBenchError):
    """A name, option, file or value that the user gave is not usable."""

    exit_code = EXIT_BAD_INPUT


class MissingWeightsError(UserInputError):
    """A base or judge is not on this machine; the hint says how to get it."""


class MissingDataError(UserInputError):
    """A prompt set or a set of images that never ships is not on this machine; the hint says what to put where and how to get it."""


class PluginError(UserInputError):
    """A plugin does not import, or does not keep the contract."""


class UnitFailedError(ConceptBenchError):
    """A unit of work failed; the run goes on with the others and ends with exit code 3."""

    exit_code = EXIT_FAILED_UNITS


class BaseChangedError(ConceptBenchError):
    """An eraser did not put the base back; fatal, because everything after it would be measured on another model."""

    exit_code = EXIT_FAILED_UNITS


class StoreError(ConceptBenchError):
    """A file in the store is damaged or foreign."""

    exit_code = EXIT_FAILED_UNITS


class WriteError(StoreError):
    """Something could not be written (a full disk, a read-only folder); fatal, because results would be lost."""


class StoppedError(ConceptBenchError):
    """The run was asked to stop (SIGTERM, Ctrl-C) and did so after the batch that it was at; running again goes on."""

    exit_code = 143


FATAL: tuple[type[Exception], ...] = (BaseChangedError, WriteError, StoppedError, OSError)
"""What ends a run at once: the base is not the base any more, nothing can be written, or it was asked to stop."""


class NotComparableError(ConceptBenchError):
    """Numbers of different protocol or suite version would end up in one column."""

    exit_code = EXIT_NOT_COMPARABLE


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like ``name``, or None if none is close."""
    lowered = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str = "") -> UserInputError:
    """The error for a name that does not exist: with the nearest one, all that exist and the command that lists them."""
    names = sorted(known)
    close = nearest(name, names)
    message = f"unknown {kind} {name!r}" + (f"; did you mean {close!r}?" if close else "")
    shown = ", ".join(names) if names else "none"
    return UserInputError(message, f"known: {shown}" + (f"  (see: {listing})" if listing else ""))
