"""Stable Diffusion: denoisers of an autoencoder's latents, conditioned on texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.models.base import Site
from conceptbench.models.conditions import Encoded
from conceptbench.models.diffusion import DiffusionBase
from conceptbench.models.info import BaseInfo
from conceptbench.models.rows import IMAGE_ROWS, in_blocks


def find_phrase(ids: list[int], phrase: list[int]) -> list[int]:
    """Positions of the last occurrence of a run of ids; empty if there is none."""
    for start in range(len(ids) - len(phrase), -1, -1):
        if phrase and ids[start : start + len(phrase)] == phrase:
            return list(range(start, start + len(phrase)))
    return []


def _ids(tokenizer: Any, texts: list[str]) -> Tensor:
    out = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    return out.input_ids  # type: ignore[no-any-return]


class StableDiffusionBase(DiffusionBase):
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder whose last normalised states condition the UNet; latents of an autoencoder.

    Args:
        info: identity and hashes.
        pipeline: a diffusers pipeline of a Stable Diffusion kind.
    """

    def __init__(self, info: BaseInfo, pipeline: Any) -> None:
        super().__init__(info, pipeline)
        self.vae = self.pipeline.vae

    def _encode_texts(self, texts: list[str]) -> Encoded:
        encoder = self.pipeline.text_encoder
        ids = _ids(self.pipeline.tokenizer, texts).to(encoder.device)
        return Encoded(encoder(ids).last_hidden_state)

    def tokenize(self, text: str) -> list[int]:
        """Padded token ids with start and end."""
        return [int(i) for i in _ids(self.pipeline.tokenizer, [text])[0]]

    def token_positions(self, text: str, phrase: str) -> list[int]:
        """Positions of the phrase's last occurrence."""
        wanted = self.pipeline.tokenizer(phrase, add_special_tokens=False).input_ids
        return find_phrase(self.tokenize(text), list(wanted))

    def _arguments(self, encoded: Encoded, x_t: Tensor) -> dict[str, Any]:  # noqa: ARG002 - XL uses it
        return {"encoder_hidden_states": encoded.hidden}

    def attention_sites(self, place: str = "all") -> list[Site]:
        """Cross-attention layers (``attn2``) in ``down``, ``mid``, ``up``, ``mid+up`` or ``all`` blocks, in module order."""
        wanted = {"all": {"down", "mid", "up"}}.get(place, set(place.split("+")))
        sites = [Site(n, m, n.split("_block")[0]) for n, m in self.unet.named_modules() if re.search(r"\.attn2$", n)]
        return [s for s in sites if s.place in wanted]

    @property
    def factor(self) -> int:
        """Pixels a latent cell."""
        return int(self.pipeline.vae_scale_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """(N, C, h, w) latents to (N, H, W, 3) uint8."""
        config = self.vae.config
        x = latents.to(self.vae.dtype) / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
        pixels = in_blocks(lambda z: self.vae.decode(z).sample, IMAGE_ROWS, x, fill=self.exact_rows is not None).float()
        return to_host(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous()).numpy()

    @torch.no_grad()
    def latents_of(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to scaled latents (N, C, h, w): the mean of the encoder's distribution."""

        def mean(pixels: Tensor) -> Tensor:  # a block at a time as floats: there may be thousands of images
            return self.vae.encode(pixels.permute(0, 3, 1, 2).contiguous().to(self.device, self.vae.dtype) / 127.5 - 1).latent_dist.mean

        means = in_blocks(mean, IMAGE_ROWS, torch.tensor(images), fill=self.exact_rows is not None)
        return (means * self.vae.config.scaling_factor).to(self.dtype)


class StableDiffusionXLBase(StableDiffusionBase):
    """Stable Diffusion XL: two encoders' penultimate states side by side, a pooled embedding and size ids."""

    def _encode_texts(self, texts: list[str]) -> Encoded:
        states, pooled = [], None
        for tokenizer, encoder in ((self.pipeline.tokenizer, self.pipeline.text_encoder), (self.pipeline.tokenizer_2, self.pipeline.text_encoder_2)):
            out = encoder(_ids(tokenizer, texts).to(encoder.device), output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled = out[0]  # of the second encoder, projected
        assert pooled is not None
        return Encoded(torch.cat(states, -1), pooled)

    def encode_unconditional(self, texts: Sequence[str]) -> Encoded:
        """Zeros for the empty prompt where the pipeline was trained so; a negative prompt is encoded."""
        encoded = self.encode(texts)
        if not self.pipeline.config.force_zeros_for_empty_prompt or encoded.pooled is None:
            return encoded
        empty = torch.tensor([t == "" for t in texts], device=encoded.hidden.device)
        return replace(encoded, hidden=encoded.hidden.masked_fill(empty[:, None, None], 0), pooled=encoded.pooled.masked_fill(empty[:, None], 0))

    def _arguments(self, encoded: Encoded, x_t: Tensor) -> dict[str, Any]:
        height, width = (float(cells * self.factor) for cells in x_t.shape[-2:])
        ids = torch.tensor([[height, width, 0.0, 0.0, height, width]], device=x_t.device, dtype=encoded.hidden.dtype)  # size, crop corner, size
        return super()._arguments(encoded, x_t) | {"added_cond_kwargs": {"text_embeds": encoded.pooled, "time_ids": ids.expand(len(x_t), 6)}}


def to_host(x: Tensor) -> Tensor:
    """A tensor on the CPU; from CUDA through pinned memory, which the device can write without a detour."""
    if x.device.type != "cuda":
        return x.cpu()
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return host
