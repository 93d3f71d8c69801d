"""The sampling loop: rows of many prompts at once, in blocks of one size so that an image does not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.runtime import Runtime
from conceptbench.models.schedulers import make_scheduler, step_takes_generator, timesteps_of

if TYPE_CHECKING:
    from conceptbench.models.base import Base


Observer = Callable[[Tensor, Tensor, Sequence[Tensor]], None]


@torch.inference_mode()
def denoise(
    base: Base,
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    sampler: Sampler,
    until: int | None = None,
    *,
    observe: Observer | None = None,
    exact: bool = True,
) -> Tensor:
    """Denoises a batch with classifier-free guidance.

    Args:
        base: the model, with whatever erasure is applied to it; an erasure's runtime rewrites conditions and guidance.
        conditions: what each image shows.
        seeds: each image's noise.
        sampler: scheduler, steps and guidance.
        until: stop after so many steps; None for all.
        observe: called at each step with t (scalar), x_t (N, C, h, w) and the native predictions [unconditional, conditional].
        exact: on a CPU, pad every forward so that an image does not depend on its batch; training has no need of it.

    Returns:
        Latents (N, C, h, w).
    """
    runtime = base.runtime or Runtime()
    asked = runtime.conditions(conditions)
    guided = sampler.guidance != 1
    groups = [base.encode([c.text for c in asked])]
    if guided:
        groups.insert(0, base.encode_unconditional([c.negative for c in asked]))
    extra = runtime.extra_texts(asked) if guided else None
    if extra is not None:
        groups.append(base.encode(extra))
    encoded = Encoded.cat(groups).to(base.device, base.dtype)
    scheduler = make_scheduler(base.pipeline.scheduler, sampler.scheduler, clip=base.clips)
    timesteps = timesteps_of(scheduler, sampler.steps, base.device)
    x = base.initial_noise(seeds, sampler.size) * scheduler.init_noise_sigma
    scale = torch.full((len(seeds), 1, 1, 1), sampler.guidance, device=base.device, dtype=base.dtype)
    step_arguments: dict[str, Any] = {}
    if step_takes_generator(scheduler):  # noise of ancestral samplers, one stream an image, apart from the initial one
        step_arguments["generator"] = [torch.Generator().manual_seed(s + 2**42) for s in seeds]
    with threads(base.sampling_threads if exact else None):
        for i, t in enumerate(timesteps[:until]):
            rows = torch.cat([scheduler.scale_model_input(x, t)] * len(groups))
            out = (base.predict_exactly(rows, t, encoded) if exact else base.predict(rows, t, encoded, to="native")).chunk(len(groups))
            if observe is not None:
                observe(t, x, out)
            native = runtime.guide(out[0], out[1], out[2] if extra is not None else None, scale, i) if guided else out[0]
            x = scheduler.step(native, t, x, **step_arguments, return_dict=False)[0]
    return x


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """So many CPU threads inside; None leaves them as they are. A forward gives the same bytes with any number, a training does not."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
