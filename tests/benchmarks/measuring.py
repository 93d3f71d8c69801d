"""What all benchmarks share: settings, rows of the table, and honest clocks.

How a ratio is measured here. Both sides run in one process with the same number of threads, in alternating rounds (A B A B ...),
because a shared machine is faster at one time than at another: each round gives one ratio of two neighbours in time, and the table
shows the median of these ratios with the smallest and the largest. What is compiled, allocated or cached once is done before the
first round on both sides. Whatever one side could keep from round to round (encoded prompts, files) is thrown away in between.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from conceptbench.core.manifests import load_suite
from conceptbench.engine.images import ImageSpec
from conceptbench.engine.lineup import Entry, resolve
from conceptbench.engine.plan import Plan, make_plan
from conceptbench.models.base import Base
from conceptbench.models.families import load_base

Unit = Literal["x", "%", "s", "ms", "MB", "GiB", "levels", "points"]
Bound = tuple[Literal["at least", "at most"], float]


@dataclass(frozen=True)
class Settings:
    """What a user may set.

    Attributes:
        base: a registered name, a diffusers folder or a hub id.
        suite: gives sampler, prompts, seeds, concepts and judges.
        threads: of torch, for both sides.
        rounds: how often both sides are timed; None for each benchmark's own number.
        images: of a round of ``sampling`` and ``matmul``.
        limit: prompts a concept in ``overhead`` and ``judging``, and in the quality check of ``esd`` (there None is all).
        steps: training steps; None for the preset's.
        task: of the suite, for ``esd``.
        erasers: of ``overhead``.
        prompts, images_per_prompt: of ``plan``.
    """

    base: str = "mini"
    suite: str = "mini"
    threads: int = 0
    rounds: int | None = None
    images: int = 64
    limit: int | None = None
    steps: int | None = None
    task: str = "object"
    erasers: tuple[str, ...] = ("uce", "esd-x")
    prompts: int = 100_000
    images_per_prompt: int = 10

    def rounds_or(self, usual: int) -> int:
        """The rounds that were asked for, or a benchmark's own number."""
        return usual if self.rounds is None else self.rounds


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what is measured; those of one benchmark begin alike.
        ours, baseline: the two sides, for people.
        value: the ratio, the share (in [0, 1] with unit ``%``) or whatever the unit says; the median over the rounds.
        unit: ``x``, ``%``, ``s``, ``ms``, ``MB``, ``GiB``, ``levels`` (of grey) or ``points`` (of a rate in [0, 1]).
        bound: what is required of the value; None for a line that only explains.
        spread: smallest and largest value over the rounds, or an interval (then ``how`` says so); None for a single number.
        how: how it was measured, in a sentence.
    """

    name: str
    ours: str
    baseline: str
    value: float
    unit: Unit
    bound: Bound | None = None
    spread: tuple[float, float] | None = None
    how: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value is what is required; None if nothing is."""
        if self.bound is None:
            return None
        return self.value >= self.bound[1] if self.bound[0] == "at least" else self.value <= self.bound[1]


# -- rounds ----------------------------------------------------------------------------------------------------------
def seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], at_least: float) -> float:
    """The median of the seconds of single calls, called over and over for ``at_least`` seconds, three times at least."""
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < at_least:
        taken.append(seconds_of(work))
    return statistics.median(taken)


def alternate(ours: Callable[[int], float], baseline: Callable[[int], float], rounds: int) -> list[tuple[float, float]]:
    """Seconds of both sides, round by round: ours, baseline, ours, baseline ...; each is told the round's number and times itself."""
    return [(ours(i), baseline(i)) for i in range(rounds)]


def middle(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The median, and smallest and largest if there are several."""
    return statistics.median(values), (min(values), max(values)) if len(values) > 1 else None


# -- clocks ----------------------------------------------------------------------------------------------------------
class ForwardClock:
    """Wall seconds inside modules' forwards; of nested ones only the outermost counts.

    Attributes:
        seconds: name -> seconds.
        calls: name -> the seconds of every single call.
        handles: hooks that :meth:`close` takes off.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, list[float]] = {}
        self._inside = 0
        self._began = 0.0
        self.handles: list[Any] = []

    def enter(self) -> None:
        """Something that counts begins."""
        self._inside += 1
        if self._inside == 1:
            self._began = time.perf_counter()

    def leave(self, name: str) -> None:
        """It ends."""
        self._inside -= 1
        if self._inside == 0:
            taken = time.perf_counter() - self._began
            self.seconds[name] = self.seconds.get(name, 0.0) + taken
            self.calls.setdefault(name, []).append(taken)

    @property
    def total(self) -> float:
        """Seconds inside anything."""
        return sum(self.seconds.values())

    def watch(self, name: str, module: nn.Module) -> None:
        """Counts the forwards of a module under a name; after a failed forward, too."""
        self.handles.append(module.register_forward_pre_hook(lambda *_: self.enter()))
        self.handles.append(module.register_forward_hook(lambda *_: self.leave(name), always_call=True))

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


# -- what is run -----------------------------------------------------------------------------------------------------
def planned(settings: Settings, erasers: Sequence[str] = (), *, tasks: Sequence[str] = (), limit: int | None = None) -> tuple[Base, Plan]:
    """The base and a plan of the suite, with ``--steps`` training steps if that is set; ``tasks``: only these."""
    suite, base = load_suite(settings.suite), load_base(settings.base)
    if tasks:
        suite = suite.model_copy(update={"tasks": tuple(t for t in suite.tasks if t.id in tasks)})
    return base, make_plan(suite, base.info, [entry(settings, base, e) for e in erasers], limit=limit)


def entry(settings: Settings, base: Base, spec: str) -> Entry:
    """A line-up entry; trained ones take ``settings.steps`` steps if that is set."""
    made = resolve(spec, family=base.info.family, tier=base.info.tier)
    if settings.steps is None or not hasattr(made.config, "steps"):
        return made
    return replace(made, config=made.config.model_copy(update={"steps": settings.steps}))


def spaced(specs: Sequence[ImageSpec], n: int) -> list[ImageSpec]:
    """N of the images, evenly over the whole list, so that all concepts are among them."""
    n = min(n, len(specs))
    return [specs[i * len(specs) // n] for i in range(n)]
