"""What a run says while it works: a bar on a terminal, plain lines otherwise. Always to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Hears what happens in a run."""

    def begin(self, what: str, total: int) -> None:
        """A stage with so many items starts."""
        ...

    def advance(self, items: int) -> None:
        """So many more items are done."""
        ...

    def end(self) -> None:
        """The stage is over."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, what: str, total: int) -> None:
        """Nothing."""

    def advance(self, items: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


@dataclass
class Lines:
    """One plain line a stage, for logs."""

    what: str = ""
    total: int = 0
    done: int = 0
    started: float = 0.0

    def begin(self, what: str, total: int) -> None:
        """Remembers the start."""
        self.what, self.total, self.done, self.started = what, total, 0, time.monotonic()

    def advance(self, items: int) -> None:
        """Counts."""
        self.done += items

    def end(self) -> None:
        """Writes the line."""
        seconds = max(0.0, time.monotonic() - self.started)
        rate = f", {self.done / seconds:.1f}/s" if self.done and seconds > 0.05 else ""
        sys.stderr.write(f"{self.what}: {self.done}/{self.total} in {seconds:.1f} s{rate}\n")
        sys.stderr.flush()


@dataclass
class Work:
    """How much was really done: a rerun counts only what was not in the store."""

    images: int = 0
    erasures: int = 0
    probes: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keeps something that people should know, once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + max(0.0, time.monotonic() - start)
