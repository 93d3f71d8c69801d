"""Contexts with images for tests of G-CiRs and SepME, and the denoiser's predictions by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny
import torch
from erasing import PlainContext

from conceptbench.core.schemas import Concept
from conceptbench.models.eraser import SavedTraining
from conceptbench.models.families import load_base

SECOND = Concept(name="gh", kind="object", phrases=("gh",), templates=("{}", "a {}"))


class Images(PlainContext):
    """Made-up images of each concept, and the curve."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.curve: list[dict[str, float]] = []
        self.asked: list[tuple[Concept, int]] = []
        self.made: dict[str, dict[str, torch.Tensor]] = {}
        self.totals: list[int] = []

    def images(self, concept, n, folder=None):
        self.asked.append((concept, n))
        return np.random.default_rng(len(concept.phrases[0]) + ord(concept.name[0])).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def progress(self, step, total, loss, *, prompt=None, **values):
        self.totals.append(total)
        super().progress(step, total, loss, prompt=prompt, **values)
        self.curve.append({"loss": loss, **values})


class Stopped(Exception):
    pass


class Interrupted(Images):
    """Ends with an error after some steps, keeping what a checkpoint keeps."""

    def __init__(self, after: int, seed: int = 1) -> None:
        super().__init__(seed)
        self.left = after

    def checkpoint(self, step, tensors):
        if step == self.left:
            self.kept = SavedTraining(step, {n: t.clone() for n, t in tensors().items()}), self.generator.get_state()
            raise Stopped


class Resumed(Images):
    def __init__(self, interrupted: Interrupted) -> None:
        super().__init__()
        (self.kept, state), self.made = interrupted.kept, interrupted.made
        self.generator.set_state(state)

    def saved(self):
        return self.kept


def eps(base, x_t, t, texts):
    """The noise prediction from the raw denoiser, converted by hand."""
    conditions = base.encode_unconditional([""]).expand(len(x_t)) if texts is None else base.encode(texts)
    time_ids = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]]).expand(len(x_t), 6)  # original size, crop and target size of 16 pixels
    extra = {} if conditions.pooled is None else {"added_cond_kwargs": {"text_embeds": conditions.pooled, "time_ids": time_ids}}
    out = base.unet(x_t, t, encoder_hidden_states=conditions.hidden, **extra).sample
    if base.pipeline.scheduler.config.prediction_type != "v_prediction":
        return out
    a = base.alphas[t].view(-1, 1, 1, 1)
    return a.sqrt() * out + (1 - a).sqrt() * x_t


def delta(base, batch):
    x_t, t, texts = batch
    return eps(base, x_t, t, texts) - eps(base, x_t, t, None)


def short(family, folder):
    """A tiny base whose prompts are 8 tokens long: beside the empty prompt 3 others fit into its 32 dimensions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "tokenizer", functools.partial(tiny.tokenizer, length=8))
        return load_base(str(tiny.save(family, folder)))


def states(base, *texts):
    """(rows, width) what the denoiser sees of the empty prompt of guidance and of the texts."""
    return torch.cat([base.encode_unconditional([""]).hidden, base.encode(["", *texts]).hidden]).flatten(0, 1).double()
