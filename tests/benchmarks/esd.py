"""ESD through the harness against its plain formulation, written out here: seconds, and what is erased and kept.

The plain formulation follows Algorithm 1 of Gandikota et al. 2023 (arXiv:2303.07345) as their code carries it out: a
second, frozen copy of the denoiser is the teacher; each step encodes its prompts anew, draws k, denoises fresh noise k
steps with the *current* model under guidance, asks the teacher with the prompt and with the empty prompt, and takes one
optimiser step on || eps(x_t, c) - [eps*(x_t, empty) - eta (eps*(x_t, c) - eps*(x_t, empty))] ||^2. It knows nothing of the
harness but the options' values.

Ours is ``erase`` with the preset ``esd-x:mini``, into a fresh store: everything that ``conceptbench erase`` does after
loading, its trajectories, checks, checkpoints and saving among it. Both train the same parameters with the same optimiser,
rate, training texts, steps, batch and trajectory length, in the number of threads that the harness trains in, from weights
that are loaded before the clock starts.

Quality: both erasures draw the task's held-out images (same prompts, same noise), the suite's judge looks at them, and
ESR-1 and PSR-1 are compared image by image: the 95 % interval of the paired difference, clustered by prompt, must contain 0
or be better. Each round trains with another seed, and the images of all rounds count.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import Row, Settings, alternate, middle, planned, seconds_of
from conceptbench.core.errors import UserInputError
from conceptbench.core.manifests import task_concepts
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.seeds import training_seed
from conceptbench.core.statistics import paired_difference, rate_interval
from conceptbench.engine.erasing import TRAINING_THREADS, erase, stored_erasure
from conceptbench.engine.generate import Generation
from conceptbench.engine.judging import Hearing
from conceptbench.engine.measures import load_measures
from conceptbench.engine.plan import Plan
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.erasers.esd import ESDConfig
from conceptbench.models.base import Base
from conceptbench.models.erasure import Erasure
from conceptbench.models.families import load_pipeline
from conceptbench.models.groups import select
from conceptbench.models.sampling import threads
from conceptbench.models.schedulers import make_scheduler

REQUIRED = 3.0
ROUNDS = 2
SPEC = "esd-x:mini"


@dataclass
class Judged:
    """What a metric says of one side's images, over all rounds: values and prompts, in the same order on both sides."""

    values: list[float] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


def run(settings: Settings) -> list[Row]:
    """The ratio of seconds, and the paired differences of ESR-1 and PSR-1."""
    base, plan = planned(settings, (SPEC,), tasks=(settings.task,), limit=settings.limit)
    if len({s.prompt_id for s in plan.images[settings.task] if s.role == "target"}) < 2:
        raise UserInputError("an interval of ESR needs two prompts of the target at least", "leave --limit out, or give 2 or more")
    headline = (plan.suite.headline.erased, plan.suite.headline.kept)
    ours, plain = ({m: Judged() for m in headline} for _ in range(2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm_up(base, plan, folder / "warm")

        def trained_ours(i: int) -> float:
            seconds, erasure = harness(base, plan, folder / f"ours-{i}", seed=i)
            judge(base, plan, erasure, folder / "images", settings.threads, ours)
            return seconds

        def trained_plain(i: int) -> float:
            pipeline = load_pipeline(base.pipeline.name_or_path)
            made: list[Erasure] = []
            with threads(TRAINING_THREADS):
                seconds = seconds_of(lambda: made.append(plain_esd(pipeline, texts_of(plan), options_of(plan), training_seed("plain", i))))
            judge(base, plan, made[0], folder / "images", settings.threads, plain)
            return seconds

        times = alternate(trained_ours, trained_plain, settings.rounds_or(ROUNDS))
    return [speed(times, options_of(plan)), *(quality(m, ours[m], plain[m], settings.task) for m in headline)]


def options_of(plan: Plan) -> ESDConfig:
    """The preset's options."""
    config = plan.entries[0].config
    assert isinstance(config, ESDConfig)
    return config


def texts_of(plan: Plan) -> list[str]:
    """The training texts of the task's targets, as the preset takes them."""
    task = plan.suite.tasks[0]
    concepts = task_concepts(plan.suite, task)
    return [t for n in task.targets for t in concepts[n].texts(options_of(plan).texts)]


def warm_up(base: Base, plan: Plan, folder: Path) -> None:
    """One step of both sides, so that nothing is loaded or allocated for the first time under the clock."""
    entry = plan.entries[0]
    short = options_of(plan).model_copy(update={"steps": 1, "bank": 2, "denoising_steps": 2})
    unit = replace(plan.erasures[0], entry=replace(entry, config=short), key="warm")
    erase(base, unit, plan.suite, Store(folder), train_seed=0)
    plain_esd(load_pipeline(base.pipeline.name_or_path), texts_of(plan), short, 1)


# -- the two sides ---------------------------------------------------------------------------------------------------
def harness(base: Base, plan: Plan, folder: Path, seed: int) -> tuple[float, Erasure]:
    """Seconds of the harness's erasure in a fresh store, and the erasure; it sets its own number of threads."""
    unit, store = plan.erasures[0], Store(folder)
    base.forget_encoded()
    seconds = seconds_of(lambda: erase(base, unit, plan.suite, store, train_seed=seed))
    erasure = stored_erasure(store, unit.key)
    assert erasure is not None
    return seconds, erasure


def plain_esd(pipeline: Any, texts: Sequence[str], config: ESDConfig, seed: int) -> Erasure:
    """ESD as the paper says it, with nothing kept from step to step.

    Args:
        pipeline: a stock Stable Diffusion pipeline of its own; its denoiser is trained.
        texts: each row of a batch takes one at random.
        config: numbers only; ``latents``, ``bank`` and ``texts`` are not looked at.
        seed: of every draw.
    """
    generator = torch.Generator().manual_seed(seed)
    unet = pipeline.unet.requires_grad_(False)
    teacher = copy.deepcopy(unet)
    scheduler = make_scheduler(pipeline.scheduler, "ddim")
    trained = select(unet, config.parameters)
    before = {n: p.detach().clone() for n, p in trained.items()}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    optimiser = kind(trained.values(), lr=config.lr, weight_decay=config.weight_decay)
    for _ in range(config.steps):
        rows = torch.randint(len(texts), (config.batch,), generator=generator).tolist()
        prompt, empty = encoded(pipeline, [texts[i] for i in rows]), encoded(pipeline, [""] * config.batch)
        x, t = partly_denoised(unet, scheduler, prompt, empty, config, generator)
        with torch.no_grad():
            cond, uncond = (teacher(x, t, encoder_hidden_states=e).sample for e in (prompt, empty))
        target = uncond - config.negative_guidance * (cond - uncond)
        loss = ((unet(x, t, encoder_hidden_states=prompt).sample - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(trained.values(), config.clip)
        optimiser.step()
    return Erasure.additive(before, {n: p.detach() for n, p in trained.items()})


@torch.no_grad()
def encoded(pipeline: Any, texts: list[str]) -> Tensor:
    """(B, L, D) last normalised states of the text encoder."""
    tokenizer = pipeline.tokenizer
    ids = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids
    return pipeline.text_encoder(ids).last_hidden_state  # type: ignore[no-any-return]


@torch.no_grad()
def partly_denoised(unet: Any, scheduler: Any, prompt: Tensor, empty: Tensor, config: ESDConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_t after k ~ U{0..steps-1} guided DDIM steps of the current model from fresh noise, and the k-th timestep."""
    scheduler.set_timesteps(config.denoising_steps)
    k = int(torch.randint(config.denoising_steps, (1,), generator=generator))
    size = unet.config.sample_size
    x = torch.randn(len(prompt), unet.config.in_channels, size, size, generator=generator) * scheduler.init_noise_sigma
    both = torch.cat([empty, prompt])
    for t in scheduler.timesteps[:k]:
        uncond, cond = unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
        x = scheduler.step(uncond + config.start_guidance * (cond - uncond), t, x).prev_sample
    return x, scheduler.timesteps[k]


# -- what came of it -------------------------------------------------------------------------------------------------
def judge(base: Base, plan: Plan, erasure: Erasure, folder: Path, number: int, into: dict[str, Judged]) -> None:
    """Draws and judges the task's images under an erasure, and adds the values of the headline metrics."""
    task, store, weights = plan.suite.tasks[0], Store(folder), erasure.weights_hash()
    everything = load_measures(plan.suite)
    measures = [m for m in everything.images if m.metric.id in into]
    hearing = Hearing({m.judge: everything.judges[m.judge] for m in measures}, plan.info, weights, store)
    specs = plan.images[task.id]
    with threads(number), erasure.applied(base):
        Generation(base, specs, weights, store, Session(), what="an erasure's images", hearing=hearing).run()
    concepts = task_concepts(plan.suite, task)
    for measure in measures:
        for spec in specs:
            if measure.metric.applies(concepts[spec.concept], spec.role):
                said = hearing.said[measure.judge][spec.key(plan.info, weights)]
                asked = Asked(concepts[spec.concept], spec.role, spec.prompt_id, spec.condition.text)
                value = measure.metric.value(Scored(asked, said))
                if value is None:
                    raise RuntimeError(f"{measure.metric.id} gave nothing for {spec.prompt_id}")
                into[measure.metric.id].values.append(value)
                into[measure.metric.id].prompts.append(spec.prompt_id)


def speed(times: Sequence[tuple[float, float]], config: ESDConfig) -> Row:
    """The ratio of seconds."""
    ratio, spread = middle([b / a for a, b in times])
    ours, plain = (f"{middle([t[side] for t in times])[0]:.1f} s" for side in (0, 1))
    how = (
        f"{SPEC}, {config.steps} steps of {config.batch}, {config.denoising_steps} DDIM steps, {TRAINING_THREADS} thread(s) on both sides; "
        f"x_t from {config.bank} trajectories of the frozen base against partial denoising at each step"
    )
    return Row("esd training", ours, plain, ratio, "x", ("at least", REQUIRED), spread, how)


def quality(metric: str, ours: Judged, plain: Judged, task: str) -> Row:
    """The paired difference ours - plain; its upper end must not be below 0."""
    if ours.prompts != plain.prompts:
        raise RuntimeError("the two sides have not the same images")
    delta, interval = paired_difference(ours.values, plain.values, ours.prompts, rate=True)
    assert interval is not None  # two prompts at least
    how = (
        f"task {task}, {len(set(ours.prompts))} held-out prompts, {len(ours.values)} images a side; highest difference that the 95 % interval "
        f"({interval.kind}) allows, at least 0 wanted: difference {100 * delta:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] points"
    )
    return Row(f"esd {metric}", rate(ours), rate(plain), interval.high, "points", ("at least", 0.0), (interval.low, interval.high), how)


def rate(side: Judged) -> str:
    """A rate with its interval, in per cent."""
    interval = rate_interval(side.values, side.prompts)
    value = 100 * sum(side.values) / len(side.values)
    return f"{value:.1f} %" + (f" [{100 * interval.low:.0f}, {100 * interval.high:.0f}]" if interval else "")
