"""How long a plan will take: from earlier runs in the store, else from a short trial of the networks on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from conceptbench.core.files import key_of, locked, pretty_json, write_text
from conceptbench.core.protocols import every_metric
from conceptbench.engine.erasing import TRAINING_THREADS
from conceptbench.engine.plan import EraseUnit, Plan
from conceptbench.engine.provenance import hardware
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import Load
from conceptbench.models.probe import Probe
from conceptbench.models.sampling import threads

if TYPE_CHECKING:
    from conceptbench.engine.run import Outcome

START_SECONDS = 12.0
"""Of every run: importing, loading the base and the judges, writing the report; measured on the mini tier."""
ERASURE_SECONDS = 1.0
"""Of every erasure apart from network evaluations: encoding, checking the base, saving; measured on the mini tier."""
JUDGING = 0.12
"""Judging and writing beside drawing, measured on the mini tier."""
ENOUGH = 64  # images from which a run's rate is worth keeping
LONG = 1.0  # seconds; a trial that took longer is not repeated


def read_rates(store: Store) -> dict[str, float]:
    """Measured seconds by name (:func:`image_rate_name`, :func:`erase_rate_name`)."""
    path = store.root / "rates.json"
    try:
        return {str(k): float(v) for k, v in json.loads(path.read_text()).items()} if path.exists() else {}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def record_rates(store: Store, plan: Plan, outcome: Outcome, session: Session, device: torch.device) -> None:
    """Keeps what a run measured; two runs that end at once do not lose each other's."""
    made = ((call, session.erased.get(call.key)) for call in plan.calls())
    new = {erase_rate_name(plan, call, device): seconds for call, seconds in made if seconds is not None}
    work = outcome.work
    new |= {probe_rate_name(plan, protocol, device): sum(each) / len(each) for protocol, each in work.probed.items()}
    if work.images >= ENOUGH:
        new[image_rate_name(plan, device)] = sum(work.seconds.get(stage, 0.0) for stage in ("generate", "write", "judge")) / work.images
    if new:
        with locked(store.root / "locks" / "rates"):
            write_text(store.root / "rates.json", pretty_json({**read_rates(store), **new}))


def image_rate_name(plan: Plan, device: torch.device) -> str:
    """The name of the rate that a plan's images go by: machine, base, sampler and judges."""
    sampler = plan.suite.sampler
    judges = sorted({m.judge for m in every_metric(plan.suite.metrics) if m.judge})
    return f"image/{hardware(device)}/{plan.info.id}/{plan.info.precision}/{sampler.scheduler}-{sampler.steps}-{sampler.guidance:g}/{'+'.join(judges)}"


def erase_rate_name(plan: Plan, call: EraseUnit, device: torch.device) -> str:
    """The name of the rate of an eraser with its options and so many targets on a machine."""
    return f"erase/{hardware(device)}/{plan.info.id}/{call.entry.spec}/{key_of(call.entry.config)[:12]}/{len(call.task.targets)}"


def timed(work: Callable[[], object], rows: int) -> float:
    """Seconds a row of ``work``: the second of two calls, so that nothing is compiled or allocated in it; the first if it was long."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if seconds > LONG:
            break
    return seconds / rows


def probe_rate_name(plan: Plan, protocol: str, device: torch.device) -> str:
    """The name of the rate of a probe of one model and concept."""
    sampler = plan.suite.sampler
    return f"probe/{hardware(device)}/{plan.info.id}/{plan.info.precision}/{protocol}/{sampler.scheduler}-{sampler.steps}-{sampler.guidance:g}"


class Trial:
    """Times the networks of a plan once, each only when it is asked for.

    Args:
        base: the loaded model; it is as it was afterwards.
        plan: what will be done.
    """

    def __init__(self, base: Base, plan: Plan) -> None:
        self.base, self.plan = base, plan
        self._text = base.classes[0] if base.classes else "a picture"
        self._known: dict[str, float] = {}

    def image_seconds(self) -> float:
        """Of drawing and judging one image; judges are not loaded for a plan, their share is what it is on the mini tier."""
        sampler = self.plan.suite.sampler
        rows = self.base.exact_rows or 32
        condition = Condition(self._text)
        images = rows // 2 if sampler.guidance != 1 else rows
        if self.base.timesteps == 1:
            with self.base.drawing():
                return timed(lambda: self.base.sample([condition] * images, list(range(images)), sampler), images) * (1 + JUDGING)
        one_step = sampler.model_copy(update={"steps": 1})
        with self.base.drawing():
            step = timed(lambda: self.base.sample([condition] * images, list(range(images)), one_step, until=1), images)
        latents = self.base.initial_noise(range(16), sampler.size)
        decode = timed(lambda: self.base.decode(latents), 16)
        return (step * sampler.steps + decode) * (1 + JUDGING)

    def erase_seconds(self, load: Load) -> float:
        """Of one erasure, with what it draws for the suite's ``watch``."""
        watch, steps = self.plan.suite.watch, load.trained // max(1, load.batch)
        looks = 2 * watch.images * (2 + steps // watch.every) if watch and steps else 0
        return ERASURE_SECONDS + self.seconds(replace(load, images=load.images + looks))

    def seconds(self, load: Load) -> float:
        """Of evaluating so many rows of the denoiser, with an empty store: what is shared with others is in it."""
        seconds = 0.0
        if load.plain:
            seconds += load.plain * self._once("plain", lambda: self._evaluate(64, None))
        if load.images:
            seconds += load.images * self._once("image", self.image_seconds)
        if load.trained or load.shared:
            rows = max(1, load.batch)
            seconds += (load.trained + load.shared) * self._once(f"trained/{load.parameters}/{rows}", lambda: self._evaluate(rows, load.parameters))
        return seconds

    def _once(self, name: str, measure: Callable[[], float]) -> float:
        if name not in self._known:
            self._known[name] = measure()
        return self._known[name]

    def _evaluate(self, rows: int, group: str | None) -> float:
        """Seconds a row of a forward, with a backward to the parameters of a group if one is given, in the training threads."""
        base = self.base
        parameters = list(base.parameters(group).values()) if group else []
        rows = rows if base.exact_rows in (None, 64) or group else 4
        x = base.initial_noise(range(rows))
        draws = base.draws(x, torch.Generator().manual_seed(0))
        encoded = base.encode([self._text] * rows).to(base.device, base.dtype)

        def work() -> None:
            with torch.set_grad_enabled(bool(parameters)):
                loss = base.objective(x, encoded, draws).mean()
                if parameters:
                    loss.backward()  # type: ignore[no-untyped-call]

        counted = base.evaluations
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            with threads(TRAINING_THREADS if base.device.type == "cpu" else None):
                return timed(work, rows)
        finally:
            base.evaluations = counted
            for parameter in parameters:
                parameter.requires_grad_(False)
                parameter.grad = None


def predicted_seconds(
    plan: Plan, base: Base, rates: Mapping[str, float], *, images: int, erasures: Sequence[EraseUnit], probes: Sequence[Probe] = ()
) -> tuple[float, bool]:
    """Seconds that a plan will take.

    Args:
        plan: what will be done.
        base: for a trial of what was never measured.
        rates: measured by earlier runs.
        images: how many are to be drawn.
        erasures: calls of erasers that are to be made.
        probes: one for each finding that is to be made.

    Returns:
        Seconds, and whether all of it was measured by earlier runs.
    """
    trial, seconds, measured = Trial(base, plan), START_SECONDS, True
    if images:
        rate = rates.get(image_rate_name(plan, base.device))
        measured = rate is not None
        seconds += images * (trial.image_seconds() if rate is None else rate)
    for unit in erasures:
        rate = rates.get(erase_rate_name(plan, unit, base.device))
        measured = measured and rate is not None
        seconds += trial.erase_seconds(unit.entry.eraser.load(unit.entry.config, len(unit.task.targets))) if rate is None else rate
    for probe in probes:
        rate = rates.get(probe_rate_name(plan, probe.protocol, base.device))
        measured = measured and rate is not None
        seconds += trial.seconds(probe.load(plan.suite.sampler)) if rate is None else rate
    return seconds, measured
