"""Trained erasers through the harness against their plain formulations: seconds a step, and the memory of tensors.

The plain formulation of a method is its formula on stock diffusers classes, one line after the other, as the methods' released
codes carry them out: a second, frozen copy of the denoiser is the teacher; texts are encoded and images go through the autoencoder
anew at each step; every prediction is a forward of its own; where x_t lies on a trajectory, each step denoises fresh noise with the
current model. Both sides train the same parameters with the same optimiser, rate and number of samples a step, in the number of
threads that the harness trains in, with the method's ``mini`` preset; the base's images and Fisher information are given to both.

Seconds a step: ours from a whole ``erase`` (banks of trajectories among it) divided by its steps; both sides take the same number,
because methods that stop early are kept from it. Memory: the largest number of bytes in live tensors within two steps, those of the
networks and of the plain side's copies among them; what an operator's kernel takes and gives back while it runs is not seen.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measuring import Row, Settings, alternate, entry, middle
from conceptbench.core.manifests import load_suite, task_concepts
from conceptbench.core.schemas import Concept
from conceptbench.engine.erasing import TRAINING_THREADS
from conceptbench.engine.lineup import Entry
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import EraseRequest
from conceptbench.models.families import load_base, load_pipeline
from conceptbench.models.groups import select
from conceptbench.models.sampling import threads
from conceptbench.models.schedulers import make_scheduler

METHODS = ("fmn", "sa", "kpop", "gcirs", "sepme", "ca", "sdd")
ROUNDS, STEPS = 2, 20


def run(settings: Settings) -> list[Row]:
    """A row of time and one of memory for each method."""
    suite, base = load_suite(settings.suite), load_base(settings.base)
    task = next(t for t in suite.tasks if t.id == settings.task)
    concepts = task_concepts(suite, task)
    targets, retained = (tuple(concepts[n] for n in names) for names in (task.targets, task.retained))
    request = EraseRequest(targets[:1], retained, suite.sampler, seed=1)
    rows = []
    for name in METHODS:
        made = with_steps(settings, base, name, request, settings.steps or STEPS)
        images = Images(base, request)

        def ours(_i: int, made: Entry = made, images: Images = images) -> float:
            base.forget_encoded()
            return step_seconds(lambda: erase(base, request, made, images), made.config.steps)  # type: ignore[attr-defined]

        def plain(_i: int, made: Entry = made, images: Images = images) -> float:
            side = Plain(load_pipeline(base.pipeline.name_or_path), request, made.config, images)
            return step_seconds(lambda: side.train(made.config.steps), made.config.steps)  # type: ignore[attr-defined]

        warm = with_steps(settings, base, name, request, 2)
        erase(base, request, warm, images)  # nothing is made, loaded or allocated for the first time under the clock
        Plain(load_pipeline(base.pipeline.name_or_path), request, warm.config, images).train(1)
        rows.append(speed(name, alternate(ours, plain, settings.rounds_or(ROUNDS)), made))
        rows.append(memory(base, name, request, warm, images))
    return rows


def with_steps(settings: Settings, base: Base, name: str, request: EraseRequest, steps: int) -> Entry:
    """A method with its options for the request's targets and exactly so many steps, none fewer because it has erased enough."""
    made = entry(settings, base, f"{name}:mini").on(request.targets)
    fixed = {field: steps for field in ("steps", "min_steps") if hasattr(made.config, field)}
    return replace(made, config=made.config.model_copy(update=fixed))


def step_seconds(work: Callable[[], object], steps: int) -> float:
    """Seconds a step of a training in the harness's number of threads."""
    with threads(TRAINING_THREADS):
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) / steps


def speed(name: str, times: Sequence[tuple[float, float]], made: Entry) -> Row:
    """The ratio of seconds a step."""
    ratio, spread = middle([b / a for a, b in times])
    ours, plain = (f"{1 / middle([t[side] for t in times])[0]:.2f} steps/s" for side in (0, 1))
    config: Any = made.config
    return Row(
        f"{name} steps",
        ours,
        plain,
        ratio,
        "x",
        None,
        spread,
        f"{made.spec}, {config.steps} steps of {config.batch} samples, {TRAINING_THREADS} thread(s) on both sides",
    )


def memory(base: Base, name: str, request: EraseRequest, made: Entry, images: Images) -> Row:
    """The ratio of the largest bytes in live tensors within two steps, which are what ``made`` takes."""
    with peak_tensors(base.modules().values()) as ours:
        erase(base, request, made, images)
    pipeline = load_pipeline(base.pipeline.name_or_path)
    with peak_tensors([m for m in pipeline.components.values() if isinstance(m, nn.Module)]) as plain:
        Plain(pipeline, request, made.config, images).train(2)
    shown = [f"{side.peak / 2**20:.0f} MiB" for side in (ours, plain)]
    return Row(
        f"{name} tensors", shown[0], shown[1], plain.peak / ours.peak, "x", None, None, "largest bytes in live tensors within two steps, networks among them"
    )


# -- ours ------------------------------------------------------------------------------------------------------------
class Images:
    """A context that draws each image once, whichever side asks; nothing is saved.

    Attributes:
        steps: how many steps were reported since it was set.
    """

    def __init__(self, base: Base, request: EraseRequest) -> None:
        self.steps = 0
        self.base, self.request = base, request
        self.generator = torch.Generator().manual_seed(1)
        self._drawn: dict[tuple[str, ...], Any] = {}
        self._shared: dict[str, dict[str, Tensor]] = {}

    def images(self, concept: Concept, n: int, folder: str | None = None) -> Any:
        """N images of the concept's texts."""
        assert folder is None
        texts = concept.texts()
        asked = (*texts, str(n))
        if asked not in self._drawn:
            conditions = [Condition(texts[i % len(texts)]) for i in range(n)]
            self._drawn[asked] = self.base.sample(conditions, [2 * i + 1 for i in range(n)], self.request.sampler)
        return self._drawn[asked]

    def shared(self, name: str, key: Mapping[str, Any], make: Callable[[torch.Generator], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Made once."""
        asked = f"{name}/{key}"
        if asked not in self._shared:
            self._shared[asked] = make(torch.Generator().manual_seed(1))
        return self._shared[asked]

    def once(self, _name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Made, each time."""
        return make()

    def tick(self) -> None:
        """Nothing."""

    def saved(self) -> None:
        """Nothing."""

    def checkpoint(self, step: int, tensors: Callable[[], dict[str, Tensor]]) -> None:
        """Nothing."""

    def progress(self, step: int, total: int, loss: float, *, prompt: Tensor | None = None, **values: float) -> None:
        """One more step."""
        self.steps += 1


def erase(base: Base, request: EraseRequest, made: Entry, images: Images) -> None:
    """An erasure through the method's class.

    Raises:
        RuntimeError: it took another number of steps than the plain side does.
    """
    images.generator.manual_seed(1)
    images.steps, wanted = 0, made.config.steps  # type: ignore[attr-defined] # all that train have it
    made.eraser().erase(base, request, made.config, images)
    if images.steps != wanted:
        raise RuntimeError(f"{made.label} took {images.steps} steps, and not {wanted}: seconds a step would not compare")


# -- the plain side --------------------------------------------------------------------------------------------------
class Plain:
    """A method's formula on a stock pipeline.

    Args:
        pipeline: of its own; its denoiser is trained.
        request: one target.
        config: the method's options: numbers only.
        images: pictures to train on, and Fisher information.
    """

    def __init__(self, pipeline: Any, request: EraseRequest, config: Any, images: Images) -> None:
        self.pipeline, self.config, self.images, self.target = pipeline, config, images, request.targets[0]
        self.unet, self.vae = pipeline.unet.requires_grad_(False), pipeline.vae
        self.teacher = copy.deepcopy(self.unet)
        self.scheduler = make_scheduler(pipeline.scheduler, "ddim")
        self.generator = torch.Generator().manual_seed(1)
        self.trained = select(self.unet, config.parameters)
        self.own: list[Tensor] = list(self.trained.values())
        self.loss: Callable[[], Tensor] = getattr(self, f"_{type(config).__module__.rsplit('.', 1)[-1]}")()

    def train(self, steps: int) -> None:
        """So many optimiser steps."""
        for p in self.own:
            p.requires_grad_(True)
        kind = torch.optim.Adam if self.config.optimiser == "adam" else torch.optim.AdamW
        optimiser = kind(self.own, lr=self.config.lr, weight_decay=self.config.weight_decay)
        for _ in range(steps):
            value = self.loss()
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.own, self.config.clip or float("inf"))
            optimiser.step()

    def _fmn(self) -> Callable[[], Tensor]:
        seen: list[Tensor] = []

        class Eager(AttnProcessor):
            def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None, **_: Any) -> Tensor:
                q = attn.head_to_batch_dim(attn.to_q(hidden_states))
                k, v = (attn.head_to_batch_dim(f(encoder_hidden_states)) for f in (attn.to_k, attn.to_v))
                seen.append(attn.get_attention_scores(q, k, attention_mask))
                return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(seen[-1] @ v)))

        for name, module in self.unet.named_modules():
            if name.endswith(".attn2"):
                module.set_processor(Eager())

        def loss() -> Tensor:
            x, t, _, texts = self._noised(self.target, self.config.images)
            seen.clear()
            self._eps(self.unet, x, t, texts)
            return torch.cat([a[..., 3:6].flatten() for a in seen]).norm()  # which tokens changes no cost

        return loss

    def _sa(self) -> Callable[[], Tensor]:
        before = [p.detach().clone() for p in self.own]
        fisher = [torch.ones_like(p) for p in before]
        replayed = Concept(name="r", kind="object", phrases=tuple(self.config.replay_texts))

        def loss() -> Tensor:
            total = torch.zeros(())
            for concept, n in ((self.target, self.config.surrogate_images), (replayed, self.config.replay_images)):
                x, t, noise, texts = self._noised(concept, n)
                total = total + F.mse_loss(self._eps(self.unet, x, t, texts), noise)
            return total + self.config.lam * sum((f * (p - b) ** 2).sum() for f, p, b in zip(fisher, self.own, before, strict=True)) / 2

        return loss

    def _kpop(self) -> Callable[[], Tensor]:
        length, width = self._states([self.target.phrases[0]]).shape[1:]
        prompt = torch.randn(1, length * self.config.size, width, generator=self.generator).requires_grad_()
        learner = torch.optim.Adam([prompt], lr=self.config.prompt_lr)
        hooked = [m for n, m in self.unet.named_modules() if n.startswith("mid_block") and n.endswith(("attn2.to_k", "attn2.to_v"))]

        def recalled(x: Tensor, t: Tensor, texts: list[str], p: Tensor) -> Tensor:
            hooks = [m.register_forward_pre_hook(lambda _m, a: (torch.cat([a[0], p.expand(len(a[0]), -1, -1)], 1),)) for m in hooked]
            out = self._eps(self.unet, x, t, texts)
            for hook in hooks:
                hook.remove()
            return out

        def loss() -> Tensor:
            x, t, texts = self._denoised(self.unet)
            anchors = [self.target.anchor] * len(texts)
            with torch.no_grad():
                goal, neutral = self._eps(self.teacher, x, t, texts), self._eps(self.teacher, x, t, anchors)
            learner.zero_grad()
            F.mse_loss(recalled(x, t, texts, prompt), goal).backward()  # type: ignore[no-untyped-call]
            learner.step()
            return F.mse_loss(self._eps(self.unet, x, t, texts), neutral) + self.config.preserve * F.mse_loss(recalled(x, t, texts, prompt.detach()), goal)

        return loss

    def _gcirs(self) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            x, t, _, texts = self._noised(self.target, self.config.images)
            empty = [""] * len(texts)
            with torch.no_grad():
                original = self._eps(self.teacher, x, t, texts) - self._eps(self.teacher, x, t, empty)
            return (original * (self._eps(self.unet, x, t, texts) - self._eps(self.unet, x, t, empty))).mean()

        return loss

    def _sepme(self) -> Callable[[], Tensor]:
        states = self._states([""])[0].double()
        basis = (self.config.beta * torch.linalg.svd(states)[2][len(states) :].T).float()

        class Added(nn.Module):
            def __init__(self, rows: int) -> None:
                super().__init__()
                self.w = nn.Parameter(torch.zeros(rows, basis.shape[1]))

            def forward(self, weight: Tensor) -> Tensor:
                return weight + self.w @ basis.T

        self.own = []
        for name in self.trained:
            linear = self.unet.get_submodule(name.removesuffix(".weight"))
            parametrize.register_parametrization(linear, "weight", Added(linear.out_features))
            self.own.append(linear.parametrizations.weight[0].w)
        return self._gcirs()

    def _ca(self) -> Callable[[], Tensor]:
        anchor = self.target.model_copy(update={"phrases": (self.target.anchor,), "name": "anchor"})

        def loss() -> Tensor:
            x, t, _, texts = self._noised(anchor, self.config.images)
            with torch.no_grad():
                goal = self._eps(self.unet, x, t, texts)
            return F.mse_loss(self._eps(self.unet, x, t, [s.replace(self.target.anchor, self.target.phrases[0]) for s in texts]), goal)

        return loss

    def _sdd(self) -> Callable[[], Tensor]:
        average = EMAModel(self.unet.parameters(), decay=self.config.ema)

        def loss() -> Tensor:
            average.copy_to(self.teacher.parameters())
            x, t, texts = self._denoised(self.teacher)
            with torch.no_grad():
                goal = self._eps(self.unet, x, t, [""] * len(texts))
            value = F.mse_loss(self._eps(self.unet, x, t, texts), goal)
            average.step(self.unet.parameters())
            return value

        return loss

    # -- what they need ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def _states(self, texts: list[str]) -> Tensor:
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids
        return self.pipeline.text_encoder(ids).last_hidden_state  # type: ignore[no-any-return]

    def _eps(self, unet: Any, x: Tensor, t: Tensor, texts: list[str]) -> Tensor:
        return unet(x, t, encoder_hidden_states=self._states(texts)).sample  # type: ignore[no-any-return]

    def _noised(self, concept: Concept, n: int) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        pixels, texts = torch.tensor(self.images.images(concept, n)), concept.texts()
        i = torch.randint(n, (self.config.batch,), generator=self.generator)
        with torch.no_grad():
            x = self.vae.encode(pixels[i].permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean * self.vae.config.scaling_factor
        noise = torch.randn(x.shape, generator=self.generator)
        t = torch.randint(len(self.scheduler.alphas_cumprod), (len(x),), generator=self.generator)
        return self.scheduler.add_noise(x, noise, t), t, noise, [texts[j % len(texts)] for j in i.tolist()]

    @torch.no_grad()
    def _denoised(self, unet: Any) -> tuple[Tensor, Tensor, list[str]]:
        texts, config = self.target.texts(), self.config
        own = [texts[j] for j in torch.randint(len(texts), (config.batch,), generator=self.generator).tolist()]
        self.scheduler.set_timesteps(config.denoising_steps)
        k = int(torch.randint(config.denoising_steps, (1,), generator=self.generator))
        size = unet.config.sample_size
        x = torch.randn(len(own), unet.config.in_channels, size, size, generator=self.generator)
        both = self._states([""] * len(own) + own)
        for t in self.scheduler.timesteps[:k]:
            uncond, cond = unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample.chunk(2)
            x = self.scheduler.step(uncond + config.start_guidance * (cond - uncond), t, x).prev_sample
        return x, self.scheduler.timesteps[k].expand(len(own)), own


# -- memory ----------------------------------------------------------------------------------------------------------
class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors' storages that operators give, as long as they live.

    Attributes:
        peak: the largest number of bytes at one time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        """Counts a tensor's storage, once."""
        storage = tensor.untyped_storage()
        pointer, size = storage.data_ptr(), storage.nbytes()
        if not size or pointer in self._known:
            return
        self._known[pointer] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, pointer)

    def _gone(self, pointer: int) -> None:
        self.live -= self._known.pop(pointer, 0)

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out


@contextmanager
def peak_tensors(modules: Any) -> Iterator[Peak]:
    """Inside, tensors are counted; the modules' own are from the start."""
    peak = Peak()
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            peak.add(tensor.data)
    with peak:
        yield peak
