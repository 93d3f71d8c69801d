"""The Base contract: the one place that knows a model's structure. Erasers and metrics are written against it.

Shapes: images (N, H, W, 3) uint8; latents (N, C, h, w) float32, already scaled as the denoiser sees them; timesteps (N,) int64.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from conceptbench.core.errors import unknown_name
from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.groups import select
from conceptbench.models.info import BaseInfo
from conceptbench.models.rows import IMAGE_ROWS, TEXT_ROWS, in_blocks, padded
from conceptbench.models.runtime import Runtime
from conceptbench.models.schedulers import make_scheduler

Prediction = Literal["eps", "x0", "native"]
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Site:
    """One cross-attention layer: its dotted name, the module, and where it is (``down``, ``mid`` or ``up``)."""

    name: str
    module: nn.Module
    place: str


class Base(ABC):
    """A loaded text-to-image model.

    Args:
        info: identity and hashes.
        pipeline: a diffusers pipeline of a Stable Diffusion kind.
    """

    def __init__(self, info: BaseInfo, pipeline: DiffusionPipeline) -> None:
        self.info = info
        self.pipeline: Any = pipeline
        self.unet, self.vae = self.pipeline.unet, self.pipeline.vae
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        self._cache: dict[str, Encoded] = {}
        self.evaluations = 0
        self.sampling_threads: int | None = None  # of whole trajectories, where training has fewer
        self.runtime: Runtime | None = None  # set while an erasure that changes sampling is applied
        self._autocast: torch.dtype | None = None  # of sampling
        self._compiled: Any = None  # the denoiser's forward for sampling, if it is compiled
        self._fast = False
        self._hook = self.unet.register_forward_pre_hook(self._count, with_kwargs=True)
        self.train_scheduler = make_scheduler(self.pipeline.scheduler, "ddim")
        self.alphas: Tensor = self.train_scheduler.alphas_cumprod.to(torch.float32)

    # -- structure ---------------------------------------------------------------------------------------------------
    def modules(self) -> dict[str, nn.Module]:
        """The pipeline's networks by component name."""
        return {k: v for k, v in self.pipeline.components.items() if isinstance(v, nn.Module)}

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return next(self.unet.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's dtype."""
        return next(self.unet.parameters()).dtype  # type: ignore[no-any-return]

    def parameters(self, group: str) -> dict[str, nn.Parameter]:
        """The denoiser's parameters in a named group (:mod:`conceptbench.models.groups`)."""
        return select(self.unet, group)

    def attention_sites(self, place: str = "all") -> list[Site]:
        """Cross-attention layers (``attn2``) in ``down``, ``mid``, ``up``, ``mid+up`` or ``all`` blocks, in module order."""
        wanted = {"all": {"down", "mid", "up"}}.get(place, set(place.split("+")))
        sites = [Site(n, m, n.split("_block")[0]) for n, m in self.unet.named_modules() if re.search(r"\.attn2$", n)]
        return [s for s in sites if s.place in wanted]

    def sample_with(self, precision: str = "fp32", *, compiled: bool = False) -> None:
        """How images are drawn; erasers always train in the weights' own precision. Part of every image's key.

        Args:
            precision: ``fp32``, or ``bf16`` or ``fp16`` for autocast of the denoiser.
            compiled: compile the denoiser (slow at first; weights may still be swapped).

        Raises:
            UserInputError: there is no such precision.
        """
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        self._autocast = PRECISIONS[precision]
        self._compiled = torch.compile(self.unet.forward) if compiled else None
        if self.device.type == "cuda":
            self.unet.to(memory_format=torch.channels_last)
        self.info = replace(self.info, precision=precision + ("-compiled" if compiled else ""))

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside, the denoiser runs as :meth:`sample_with` said; outside it is plain, for training and for teachers."""
        self._fast = True
        try:
            with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
                yield
        finally:
            self._fast = False

    # -- conditions --------------------------------------------------------------------------------------------------
    @abstractmethod
    def _encode_texts(self, texts: list[str]) -> Encoded:
        """Encodes texts without caching."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encodes texts; each distinct one is encoded once, until the text encoder changes. Returns N rows."""
        missing = [t for t in dict.fromkeys(texts) if t not in self._cache]
        for start in range(0, len(missing), TEXT_ROWS):
            part = missing[start : start + TEXT_ROWS]
            # cached rows may be needed by autograd later, and by whoever does not draw in half precision
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                encoded = self._encode_texts(part + [part[-1]] * (TEXT_ROWS - len(part)))
            self._cache.update({t: encoded[i : i + 1] for i, t in enumerate(part)})
        return Encoded.cat([self._cache[t] for t in texts])

    def encode_unconditional(self, texts: Sequence[str]) -> Encoded:
        """Encodes the texts of the unconditional half of guidance (:attr:`Condition.negative`). Returns N rows."""
        return self.encode(texts)

    def forget_encoded(self) -> None:
        """Drops cached embeddings: whoever changes the text encoder or tokenizer calls it."""
        self._cache.clear()

    @abstractmethod
    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text as the (first) encoder sees them: padded, with start and end."""

    @abstractmethod
    def token_positions(self, text: str, phrase: str) -> list[int]:
        """Positions of the last occurrence of a phrase's tokens in an encoded text; empty if it is not there."""

    @property
    def exact_rows(self) -> int | None:
        """Rows of every forward while sampling on a CPU (:mod:`conceptbench.models.rows`): few for a large model; None elsewhere."""
        if self.device.type != "cpu":
            return None
        return 64 if sum(p.numel() for p in self.unet.parameters()) < 50_000_000 else 4

    # -- diffusion ---------------------------------------------------------------------------------------------------
    def _count(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.evaluations += len(args[0] if args else kwargs["sample"])

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(a_t) x + sqrt(1 - a_t) noise."""
        a = self.alphas.to(x.device)[t].view(-1, 1, 1, 1)
        return a.sqrt() * x + (1 - a).sqrt() * noise

    def predict(self, x_t: Tensor, t: Tensor, encoded: Encoded, to: Prediction = "eps") -> Tensor:
        """The denoiser's answer, converted from what it was trained to predict.

        Args:
            x_t: (N, C, h, w) noisy latents.
            t: (N,) or scalar int64 timesteps.
            encoded: N encoded conditions.
            to: ``eps`` (noise), ``x0`` (clean latents) or ``native`` (unchanged).

        Returns:
            (N, C, h, w).
        """
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        denoiser = self.unet
        if self._fast and self._compiled is not None:  # a compiled forward calls no hooks
            denoiser = self._compiled
            self.evaluations += len(x_t)
        out = denoiser(x_t, t, encoder_hidden_states=encoded.hidden, **self._extra(encoded, x_t)).sample.to(x_t.dtype)
        return self.convert(out, x_t, t, to)

    def predict_exactly(self, x_t: Tensor, t: Tensor, encoded: Encoded) -> Tensor:
        """The native prediction, in blocks of :attr:`exact_rows` rows. t: scalar."""
        rows = self.exact_rows
        parts = []
        for start in range(0, len(x_t), rows or len(x_t)):
            block, own = x_t[start : start + (rows or len(x_t))], encoded[start : start + (rows or len(x_t))]
            size = rows or len(block)
            parts.append(self.predict(padded(block, size), t, own.padded(size), to="native")[: len(block)])
            self.evaluations -= size - len(block)  # padding is no work of the method's
        return torch.cat(parts)

    def convert(self, out: Tensor, x_t: Tensor, t: Tensor, to: Prediction) -> Tensor:
        """Converts a native prediction (epsilon or v) to noise or clean latents."""
        if to == "native":
            return out
        a = self.alphas.to(x_t.device)[t].view(-1, 1, 1, 1)
        if self.train_scheduler.config.prediction_type == "v_prediction":
            eps, x0 = a.sqrt() * out + (1 - a).sqrt() * x_t, a.sqrt() * x_t - (1 - a).sqrt() * out
        else:
            eps, x0 = out, (x_t - (1 - a).sqrt() * out) / a.sqrt()
        return eps if to == "eps" else x0

    def _extra(self, encoded: Encoded, x_t: Tensor) -> dict[str, Any]:  # noqa: ARG002 - families use it
        """Further arguments of the denoiser for these conditions and latents."""
        return {}

    def loss(self, x: Tensor, encoded: Encoded, generator: torch.Generator) -> Tensor:
        """The model's own objective per example: squared error of noise (or v) at a random timestep. Returns (N,)."""
        noise = torch.randn(x.shape, generator=generator).to(x)
        t = torch.randint(len(self.alphas), (len(x),), generator=generator).to(x.device)
        goal = self.native_goal(x, noise, t)
        return ((self.predict(self.add_noise(x, noise, t), t, encoded, to="native") - goal) ** 2).mean((1, 2, 3))

    def native_goal(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser was trained to predict for clean latents x with noise at timesteps t: the noise, or v. (N, C, h, w)."""
        if self.train_scheduler.config.prediction_type != "v_prediction":
            return noise
        a = self.alphas.to(x)[t].view(-1, 1, 1, 1)
        return a.sqrt() * noise - (1 - a).sqrt() * x

    # -- pixels ------------------------------------------------------------------------------------------------------
    @property
    def factor(self) -> int:
        """Pixels a latent cell."""
        return int(self.pipeline.vae_scale_factor)

    def latent_shape(self, size: int | None) -> tuple[int, int, int]:
        """(C, h, w) of an image of ``size`` pixels, or of the base's own size."""
        cells = self.unet.config.sample_size if size is None else size // self.factor
        return int(self.unet.config.in_channels), int(cells), int(cells)

    def initial_noise(self, seeds: Sequence[int], size: int | None = None) -> Tensor:
        """(N, C, h, w): one CPU generator an image, drawn in fp32 and then cast, so that noise depends on the seed alone."""
        shape = self.latent_shape(size)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(self.device, self.dtype)

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

    # -- sampling ----------------------------------------------------------------------------------------------------
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int], sampler: Sampler, until: int | None = None) -> NDArray[np.uint8] | Tensor:
        """Draws images, or with ``until`` = k the latents after k denoising steps (k = 0: the initial noise)."""
        from conceptbench.models.sampling import denoise

        latents = denoise(self, conditions, seeds, sampler, until)
        return self.decode(latents) if until is None else latents

    @contextmanager
    def swapped(self, values: dict[str, Tensor]) -> Iterator[None]:
        """The denoiser with some parameters' values replaced, e.g. a teacher's. Leave it before ``backward``."""
        parameters = dict(self.unet.named_parameters())
        old = {n: parameters[n].data for n in values}
        try:
            for name, value in values.items():
                parameters[name].data = value
            yield
        finally:
            for name, value in old.items():
                parameters[name].data = value


def to_host(x: Tensor) -> Tensor:
    """A tensor on the CPU; from CUDA through pinned memory, which the device can write without a detour."""
    if x.device.type != "cuda":
        return x.cpu()
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return host
