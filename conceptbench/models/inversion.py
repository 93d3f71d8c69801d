"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): vectors in the place of tokens with which a model explains given images.

Several inversions run at once, each a *seed* with vectors and draws of its own. Shapes: S seeds, k tokens, W the text
encoders' widths together, N images, latents (N, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Strict
from conceptbench.models.base import Base
from conceptbench.models.conditions import Encoded
from conceptbench.models.pooling import ROWS, encode_both, text_encoders, widths
from conceptbench.models.rows import padded


class InversionConfig(Strict):
    """Options of textual inversion.

    Attributes:
        steps: optimiser steps.
        batch: images a step and seed.
        lr: of AdamW, with betas 0.9 and 0.999.
        weight_decay: of AdamW; 0 makes it Adam.
        warmup: steps over which the learning rate grows from 0.
        decay: whether it then falls to 0 (``linear``) or stays (``constant``).
        norm: what the vectors' lengths are pulled to after each step: a length, ``table`` for the mean length in the encoder's own
            table, or None for nothing.
        templates: the texts around the vectors, drawn anew for each step and seed.
        evaluation: noisy latents on which the loss before and after is taken.
    """

    steps: int = Field(default=500, ge=1)
    batch: int = Field(default=4, ge=1)
    lr: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0)
    decay: Literal["constant", "linear"] = "constant"
    norm: float | Literal["table"] | None = None
    templates: tuple[str, ...] = Field(default=("a photo of {}",), min_length=1)
    evaluation: int = Field(default=64, ge=1)

    @field_validator("templates")
    @classmethod
    def _has_a_slot(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r} needs exactly one {{}}")
        return templates

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        grown = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        left = (self.steps - step) / max(1, self.steps - self.warmup) if self.decay == "linear" else 1.0
        return self.lr * min(grown, left)


@dataclass(frozen=True)
class Draw:
    """Noisy latents: image number (R,), timestep (R,) and noise (R, C, h, w); on the CPU."""

    image: Tensor
    t: Tensor
    noise: Tensor

    def __getitem__(self, rows: Tensor) -> Draw:
        return Draw(self.image[rows], self.t[rows], self.noise[rows])


@dataclass(frozen=True)
class Inversion:
    """What textual inversion found, a row a seed; on the CPU.

    Attributes:
        initial: (S, k, W) float32 vectors at step 0.
        vectors: (S, k, W) float32 vectors at the end.
        before, after: (S,) loss with each on the same draw.
        curve: (S, steps) loss of each step on its own draw.
    """

    initial: Tensor
    vectors: Tensor
    before: Tensor
    after: Tensor
    curve: Tensor


ROWS_ON_A_DEVICE = 8
"""Rows at once where the base sets no number; with gradients to its conditions, a denoiser keeps the activations of each row."""


def initial_vectors(base: Base, text: str, tokens: int, seeds: Sequence[int], spread: float | None = None) -> Tensor:
    """Vectors to begin with: the embeddings of a text's tokens, then random ones.

    Args:
        base: whose token embeddings.
        text: its last ``tokens`` tokens are taken (the noun is at the end); it may be empty.
        tokens: k.
        seeds: of the random ones.
        spread: the random ones' standard deviation; None for that of the encoder's table.

    Returns:
        (S, k, W) float32 on the CPU.
    """
    parts = []
    for encoder in text_encoders(base):
        table = encoder.table.float().cpu()
        known = table[torch.tensor(encoder.plain(text)[-tokens:], dtype=torch.long)]
        missing = (tokens - len(known), table.shape[1])
        scale = float(table.std()) if spread is None else spread
        parts.append(torch.stack([torch.cat([known, scale * torch.randn(missing, generator=torch.Generator().manual_seed(s))]) for s in seeds]))
    return torch.cat(parts, -1)


def denoising_error(base: Base, x: Tensor, draw: Draw, encoded: Encoded) -> Tensor:
    """(R,) squared error of what the model predicts (noise or velocity) for noisy latents.

    Args:
        base: the model, with whatever erasure is applied to it.
        x: (N, C, h, w) clean latents.
        draw: R noisy ones of them.
        encoded: R conditions.
    """
    clean, noise, t = x[draw.image.to(x.device)], draw.noise.to(x), draw.t.to(x.device)
    goal = base.native_goal(clean, noise, t)
    rows = -(-len(t) // ROWS) * ROWS
    inputs = (padded(base.add_noise(clean, noise, t), rows), padded(t, rows), encoded.padded(rows))
    out = base.predict(*inputs, to="native")[: len(t)]
    base.evaluations -= rows - len(t)
    return ((out.float() - goal.float()) ** 2).mean((1, 2, 3))


def random_draw(latents: Tensor, rows: int, steps: int, generator: torch.Generator) -> Draw:
    """A training batch: image, timestep and noise at random."""
    image = torch.randint(len(latents), (rows,), generator=generator)
    t = torch.randint(steps, (rows,), generator=generator)
    return Draw(image, t, torch.randn((rows, *latents.shape[1:]), generator=generator))


def even_draw(latents: Tensor, rows: int, steps: int, seed: int) -> Draw:
    """Noisy latents to compare models on: all images in turn, timesteps evenly spread over all, noise by the seed."""
    generator = torch.Generator().manual_seed(seed)
    t = ((torch.arange(rows) + 0.5) / rows * steps).long()[torch.randperm(rows, generator=generator)]
    return Draw(torch.arange(rows) % len(latents), t, torch.randn((rows, *latents.shape[1:]), generator=generator))


@torch.no_grad()
def _evaluate(base: Base, latents: Tensor, vectors: Tensor, templates: Sequence[str], draw: Draw, rows: int) -> Tensor:
    """(S,) mean loss of each seed's vectors on one draw; row r of it in template r modulo their number."""
    means = []
    for own in vectors:
        encoded, _ = encode_both(base, templates, own.expand(len(templates), *own.shape))
        blocks = torch.arange(len(draw.t)).split(rows)
        losses = [denoising_error(base, latents, draw[r], encoded[r % len(templates)].to(base.device, base.dtype)) for r in blocks]
        means.append(torch.cat(losses).mean().cpu())
    return torch.stack(means)


def pull_norms(vectors: Tensor, parts: Sequence[int], lengths: Sequence[float], rate: float) -> Tensor:
    """Vectors with lengths moved towards the wanted ones by a share min(1, 100 rate) of the way (Forget-Me-Not's ``clip_ti_decay``).

    Args:
        vectors: (S, k, W).
        parts: the widths that W is made of.
        lengths: the length wanted in each part.
        rate: the learning rate.
    """
    share, pulled = min(1.0, 100 * rate), []
    for part, wanted in zip(vectors.split(list(parts), -1), lengths, strict=True):
        norm = part.norm(dim=-1, keepdim=True)
        pulled.append(torch.nn.functional.normalize(part, dim=-1) * (norm + share * (wanted - norm)))
    return torch.cat(pulled, -1)


def invert(
    base: Base,
    latents: Tensor,
    initial: Tensor,
    seeds: Sequence[int],
    config: InversionConfig,
    *,
    evaluation_seed: int,
    rows: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Inversion:
    """Learns vectors with which the model explains images; the model itself stays as it is.

    Args:
        base: the model, with whatever erasure is applied to it. A change of sampling (a runtime) is not seen.
        latents: (N, C, h, w) of the images, as of :meth:`Base.latents_of`.
        initial: (S, k, W), as of :func:`initial_vectors`.
        seeds: of each inversion's draws; what one finds does not depend on the others.
        config: options.
        evaluation_seed: of the draw for the loss before and after; the same one makes losses of several models comparable.
        rows: the most that go through the denoiser at once (but at least one seed's batch); None for what suits the model and its device.
        progress: called with 1 after each step.

    Raises:
        UserInputError: shapes do not fit, or there is no image.
    """
    if len(latents) == 0:
        raise UserInputError("textual inversion needs at least one image")
    if len(initial) != len(seeds):
        raise UserInputError(f"{len(initial)} initial vectors for {len(seeds)} seeds", "give one of shape (tokens, width) a seed")
    latents, parts = latents.to(base.device, base.dtype), widths(base)
    lengths = [float(e.table.float().norm(dim=-1).mean()) if config.norm == "table" else float(config.norm or 0) for e in text_encoders(base)]
    evaluation = even_draw(latents, config.evaluation, len(base.alphas), evaluation_seed)
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    rows = rows or base.exact_rows or ROWS_ON_A_DEVICE
    together = max(1, rows // config.batch)
    curve = torch.zeros(len(seeds), config.steps)
    with torch.inference_mode(False), torch.enable_grad():
        vectors = initial.clone().to(base.device, torch.float32).requires_grad_(True)
        before = _evaluate(base, latents, vectors, config.templates, evaluation, rows)
        optimiser = torch.optim.AdamW([vectors], lr=config.lr, weight_decay=config.weight_decay)
        for step in range(config.steps):
            optimiser.zero_grad()
            for start in range(0, len(seeds), together):
                losses = _step(base, latents, vectors[start : start + together], generators[start : start + together], config)
                losses.sum().backward()
                curve[start : start + together, step] = losses.detach().cpu()
            for group in optimiser.param_groups:
                group["lr"] = config.rate(step)
            optimiser.step()
            if config.norm is not None:
                vectors.data = pull_norms(vectors.data, parts, lengths, config.rate(step))
            progress(1)
        after = _evaluate(base, latents, vectors, config.templates, evaluation, rows)
    return Inversion(initial.clone(), vectors.detach().cpu(), before, after, curve)


def _step(base: Base, latents: Tensor, vectors: Tensor, generators: Sequence[torch.Generator], config: InversionConfig) -> Tensor:
    """(S,) loss of one batch for each seed."""
    templates = [config.templates[int(torch.randint(len(config.templates), (), generator=g))] for g in generators]
    draws = [random_draw(latents, config.batch, len(base.alphas), g) for g in generators]
    draw = Draw(*(torch.cat([getattr(d, name) for d in draws]) for name in ("image", "t", "noise")))
    encoded, _ = encode_both(base, templates, vectors)
    conditions = encoded[torch.arange(len(vectors)).repeat_interleave(config.batch)].to(base.device, base.dtype)
    return denoising_error(base, latents, draw, conditions).view(len(vectors), config.batch).mean(1)
