"""Progress bars for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        """``12.3/s``."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


class Bars:
    """One bar a stage, on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=Console(stderr=True)
        )
        self._open: list[TaskID] = []  # stages inside stages

    def begin(self, what: str, total: int) -> None:
        """A new bar."""
        self._progress.start()
        self._open.append(self._progress.add_task(what, total=total))

    def advance(self, items: int) -> None:
        """Moves the innermost one."""
        if self._open:
            self._progress.advance(self._open[-1], items)

    def end(self) -> None:
        """Leaves it standing; after the outermost one frees the terminal, and the next stage starts a new display below."""
        self._open.pop()
        if self._open:
            return
        self._progress.stop()
        self._progress = Progress(*self._progress.columns, console=self._progress.console)

    def abandon(self) -> None:
        """Leaves all standing and frees the terminal."""
        while self._open:
            self.end()
