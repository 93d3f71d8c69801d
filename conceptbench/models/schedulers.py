"""Samplers by name, with the base's own noise schedule."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def make_scheduler(own: Any, name: str, *, clip: bool = False) -> Any:
    """A fresh scheduler of the named kind with the betas and prediction type of the base's own.

    Args:
        own: the base pipeline's scheduler.
        name: a key of :data:`SCHEDULERS`.
        clip: keep predicted clean samples in [-1, 1], where the scheduler can.
    """
    kind, extra = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(own.config, clip_sample=clip, **extra)


def step_takes_generator(scheduler: Any) -> bool:
    """Whether the scheduler's step draws noise (ancestral and DDPM) from a generator."""
    return "generator" in scheduler.step.__code__.co_varnames[: scheduler.step.__code__.co_argcount]


def timesteps_of(scheduler: Any, steps: int, device: torch.device) -> Any:
    """Sets and returns the scheduler's timesteps."""
    scheduler.set_timesteps(steps, device=device)
    return scheduler.timesteps
