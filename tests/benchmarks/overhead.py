"""What of a run is not a network: the harness's own share of the wall time.

The run is ``Runner.run`` (erase, draw, judge, score) with ``write_results`` and the report behind it, on the suite with a few
prompts a concept, UCE and ESD-x, in a fresh store each round; loading the base and the judges comes before it.

As network counts, by the wall clock of the main thread: forwards of the denoiser, the autoencoder's parts, the text encoders, and
the judges' own modules; in training also ``backward`` and the optimiser's step. Everything else is *other*: encoding and writing
PNGs as far as it keeps the main thread waiting, hashes, keys, the judges' preprocessing and arithmetic around their modules,
schedulers, closed-form solutions, checkpoints, statistics, tables, the page. Where a judge calls parts of its network directly,
only the parts' forwards count as network, so *other* is rather too large than too small. The hooks themselves cost
microseconds a forward.

On a CPU the denoiser's blocks are padded so that an image does not depend on its batch. Padding is network time that no image
needed; a row says how much of the run it was, taking each row of the denoiser to cost the same. With few prompts it is more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from benchmarks.measuring import ForwardClock, Row, Settings, middle, planned
from conceptbench.engine.plan import Plan
from conceptbench.engine.progress import Work
from conceptbench.engine.provenance import write_results
from conceptbench.engine.report import report_from_results
from conceptbench.engine.run import Runner
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.sampling import threads

REQUIRED = 0.10
ROUNDS = 3
LIMIT = 6


def run(settings: Settings) -> list[Row]:
    """The share of the wall time that is no network, and the same for each stage and each kind of network."""
    base, plan = planned(settings, settings.erasers, limit=settings.limit or LIMIT)
    with threads(settings.threads):
        measured = [once(base, plan) for _ in range(settings.rounds_or(ROUNDS))]
    return rows(measured, plan)


@dataclass
class StageWork(Work):
    """The run's own account of its stages, which also knows how much of each stage was network."""

    clock: ForwardClock = field(default_factory=ForwardClock)
    network: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of a stage."""
        before = self.clock.total
        try:
            with super().timed(stage):
                yield
        finally:
            self.network[stage] = self.network.get(stage, 0.0) + self.clock.total - before


@dataclass(frozen=True)
class Measured:
    """One run, in seconds.

    Attributes:
        wall: of everything.
        network: kind -> seconds.
        stages: stage -> (wall, network). What lies between the stages is in ``wall`` only.
        images, erasures: how many were made.
        padding: share of the denoiser's rows.
    """

    wall: float
    network: dict[str, float]
    stages: dict[str, tuple[float, float]]
    images: int
    erasures: int
    padding: float

    @property
    def other(self) -> float:
        """Seconds outside all networks."""
        return self.wall - sum(self.network.values())


def once(base: Base, plan: Plan) -> Measured:
    """Carries out the plan in a fresh store with every network under the clock."""
    base.forget_encoded()
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        runner = Runner(base, plan, store)
        with networks_timed(base, runner.measures.judges) as clock:
            work = runner.outcome.work = StageWork(clock=clock)
            counted, rows = base.evaluations, rows_counted(base, clock)
            start = time.perf_counter()
            outcome = runner.run()
            with work.timed("results"):
                write_results(outcome, runner.measures.judges, Path(name) / "out", store, argv=["benchmark"])
            with work.timed("report"):
                report_from_results(Path(name) / "out", store)
            wall = time.perf_counter() - start
    if outcome.failures:
        raise RuntimeError(f"units failed, so nothing was measured: {outcome.failures}")
    stages = {s: (seconds, work.network[s]) for s, seconds in work.seconds.items()}
    padding = 1 - (base.evaluations - counted) / sum(rows)
    return Measured(wall, dict(clock.seconds), stages, work.images, work.erasures, padding)


def rows_counted(base: Base, clock: ForwardClock) -> list[int]:
    """Grows by the number of rows of each forward of the denoiser, padding included, until the clock is closed."""
    rows: list[int] = []
    clock.handles.append(base.unet.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(args[0] if args else kwargs["sample"])), with_kwargs=True))
    return rows


@contextmanager
def networks_timed(base: Base, judges: Mapping[str, Any]) -> Iterator[ForwardClock]:
    """Inside, everything that counts as a network is timed."""
    clock = ForwardClock()
    kinds = {"unet": "denoiser", "vae": "autoencoder"}
    gradients = torch.autograd.grad

    def timed_gradients(*args: Any, **kwargs: Any) -> Any:
        clock.enter()
        try:
            return gradients(*args, **kwargs)
        finally:
            clock.leave("backward")

    with ExitStack() as stack:
        stack.callback(clock.close)
        for name, network in base.modules().items():
            watch_parts(clock, kinds.get(name, "text encoder"), network)
        for judge in judges.values():
            for part in vars(judge).values():
                if isinstance(part, nn.Module):
                    watch_parts(clock, "judges", part)
        stack.enter_context(patch.object(torch.autograd, "grad", timed_gradients))
        stack.callback(register_optimizer_step_pre_hook(lambda *_: clock.enter()).remove)
        stack.callback(register_optimizer_step_post_hook(lambda *_: clock.leave("optimiser")).remove)
        yield clock


def watch_parts(clock: ForwardClock, name: str, network: nn.Module) -> None:
    """Counts a network's forwards, and those of its parts for whoever calls them directly (``vae.decode``, ``encode_image``)."""
    clock.watch(name, network)
    for part in network.children():
        if isinstance(part, (nn.ModuleList, nn.ModuleDict)):  # never called as a whole
            for own in part.children():
                clock.watch(name, own)
        else:
            clock.watch(name, part)


def rows(measured: list[Measured], plan: Plan) -> list[Row]:
    """The table's rows: the whole, each stage (*other* against the stage's wall time), each kind of network (its share of the whole)."""
    share, spread = middle([m.other / m.wall for m in measured])
    m = sorted(measured, key=lambda m: m.other / m.wall)[len(measured) // 2]  # the breakdown is of one run, so that it adds up
    line_up = " and ".join(e.spec for e in plan.entries)
    how = f"{plan.suite.name} --limit {plan.limited}, {line_up}: {m.erasures} erasures, {m.images} images; fresh store; {len(measured)} runs"
    inside = [sum(part[i] for part in m.stages.values()) for i in (0, 1)]
    padding = m.padding * m.network["denoiser"]
    share_of = "share of the whole run"
    stages = {**m.stages, "between the stages": (m.wall - inside[0], m.wall - m.other - inside[1])}
    return [
        Row("overhead: not a network", f"{m.other:.1f} s", f"{m.wall:.1f} s", share, "%", ("at most", REQUIRED), spread, how),
        Row("overhead: padding", f"{padding:.1f} s", f"{m.wall:.1f} s", padding / m.wall, "%", how=f"{m.padding:.0%} of the denoiser's rows; {share_of}"),
        *(
            Row(f"overhead: {stage}", f"{wall - network:.2f} s", f"{wall:.2f} s", (wall - network) / m.wall, "%", how=f"other of the stage; {share_of}")
            for stage, (wall, network) in stages.items()
        ),
        *(
            Row(f"network: {kind}", f"{seconds:.2f} s", f"{m.wall:.1f} s", seconds / m.wall, "%", how=share_of)
            for kind, seconds in sorted(m.network.items(), key=lambda item: -item[1])
        ),
    ]
