"""What accompanies a run through all its stages: who hears of it, its journal, whether it was asked to stop, and its shard."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from conceptbench.core.errors import StoppedError, UserInputError
from conceptbench.core.files import append_line
from conceptbench.engine.progress import Reporter, Silent

T = TypeVar("T")


class Journal:
    """``journal.jsonl``: one line an event, appended whole, kept over restarts.

    Events: ``begin`` and ``end`` of a stage (erase, generate, judge, score, report) of a unit, ``batch`` with the keys that
    are finished and on disk, ``checkpoint`` with a training step. Times are for people; nothing is computed from them.

    Args:
        path: the file, or None to keep no journal.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    def write(self, event: str, stage: str, unit: str, **values: Any) -> None:
        """Adds a line."""
        if self.path is not None:
            line = {"event": event, "stage": stage, "unit": unit, "pid": os.getpid(), "time": round(time.time(), 3), **values}
            append_line(self.path, json.dumps(line, separators=(",", ":")))

    @contextmanager
    def stage(self, stage: str, unit: str, **values: Any) -> Iterator[None]:
        """``begin`` before and ``end`` after; no ``end`` if it failed."""
        self.write("begin", stage, unit, **values)
        yield
        self.write("end", stage, unit)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a torn line is dropped."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a plan, for job arrays; ``index`` counts from 0."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``2/8``: the second of eight.

        Raises:
            UserInputError: it is not of that form, or out of range.
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        index, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= index <= count:
            raise UserInputError(f"not a shard: {text!r}", "write i/n with 1 <= i <= n, e.g. --shard 1/4 ... --shard 4/4")
        return cls(index - 1, count)

    def of(self, items: Sequence[T], offset: int = 0) -> list[T]:
        """Every ``count``-th item; shard number ``offset`` (modulo the count) has the first."""
        return list(items[(self.index - offset) % self.count :: self.count])

    def rotated(self, items: Sequence[T]) -> list[T]:
        """All items, this shard's own first, so that shards that start together begin with different ones."""
        start = self.index * len(items) // self.count
        return [*items[start:], *items[:start]]

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


@dataclass
class Stop:
    """A request to stop; batches and training steps ask for it between them."""

    asked: str = ""

    def check(self) -> None:
        """Raises StoppedError if the run was asked to stop."""
        if self.asked:
            raise StoppedError(f"stopped by {self.asked} after a whole batch; nothing is lost", "run the same command again to go on")

    @contextmanager
    def on_signals(self) -> Iterator[Stop]:
        """SIGTERM, and the first Ctrl-C, ask to stop; a second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def ask(number: int, _frame: FrameType | None) -> None:
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = signal.Signals(number).name

        old = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


@dataclass
class Session:
    """The company of a run.

    Attributes:
        reporter: hears of progress.
        journal: remembers events.
        stop: whether to stop.
        shard: the part that is this process's.
        batch: images a forward.
        checkpoint_seconds: how often training is saved.
        erased: seconds of each erasure that was made now, by key; None where they were not measured.
        failed: why an erasure could not be made, by key: tasks that share it do not try again.
    """

    reporter: Reporter = field(default_factory=Silent)
    journal: Journal = field(default_factory=Journal)
    stop: Stop = field(default_factory=Stop)
    shard: Shard = field(default_factory=Shard)
    batch: int = 32
    checkpoint_seconds: float = 20.0
    erased: dict[str, float | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
