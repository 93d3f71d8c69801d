"""What a run says while it works: a bar on a terminal, plain lines otherwise. Always to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Hears what happens in a run. A stage may begin inside another, e.g. the images that an eraser asks for."""

    def begin(self, what: str, total: int) -> None:
        """A stage with so many items starts."""
        ...

    def advance(self, items: int) -> None:
        """So many more items of the innermost stage are done."""
        ...

    def end(self) -> None:
        """The innermost stage is over."""
        ...

    def abandon(self) -> None:
        """What is open failed: all stages are over."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, what: str, total: int) -> None:
        """Nothing."""

    def advance(self, items: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def abandon(self) -> None:
        """Nothing."""


@dataclass
class _Stage:
    what: str
    total: int
    started: float
    done: int = 0


@dataclass
class Lines:
    """One plain line a stage, for logs."""

    stages: list[_Stage] = field(default_factory=list)

    def begin(self, what: str, total: int) -> None:
        """Remembers the start."""
        self.stages.append(_Stage(what, total, time.monotonic()))

    def advance(self, items: int) -> None:
        """Counts for the innermost stage."""
        if self.stages:
            self.stages[-1].done += items

    def end(self) -> None:
        """Writes the line."""
        stage = self.stages.pop()
        seconds = max(0.0, time.monotonic() - stage.started)
        rate = f", {stage.done / seconds:.1f}/s" if stage.done and seconds > 0.05 else ""
        sys.stderr.write(f"{stage.what}: {stage.done}/{stage.total} in {seconds:.1f} s{rate}\n")
        sys.stderr.flush()

    def abandon(self) -> None:
        """Writes how far each came."""
        while self.stages:
            self.end()


@dataclass
class Work:
    """How much was really done: a rerun counts only what was not in the store. ``probed`` is the seconds of each finding, by protocol."""

    images: int = 0
    erasures: int = 0
    probed: dict[str, list[float]] = field(default_factory=dict)
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
