"""A second target for tests of G-CiRs and SepME, and the denoiser's predictions by hand."""

from __future__ import annotations

import tiny
import torch

from conceptbench.core.schemas import Concept
from conceptbench.models.families import load_base

SECOND = Concept(name="gh", kind="object", phrases=("gh",), templates=("{}", "a {}"))


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
    return load_base(str(tiny.save(family, folder, length=8)))


def states(base, *texts):
    """(rows, width) what the denoiser sees of the empty prompt of guidance and of the texts."""
    return torch.cat([base.encode_unconditional([""]).hidden, base.encode(["", *texts]).hidden]).flatten(0, 1).double()
