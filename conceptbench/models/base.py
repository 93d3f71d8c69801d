"""The Base contract: the one place that knows a model's structure. Erasers and metrics are written against it.

What a model is conditioned on reaches it as a text: a prompt, or the name of a class. Shapes: images (N, H, W, 3) uint8; latents
(N, C, h, w) float32, already scaled as the network sees them; timesteps (N,) int64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition, Encoded
from conceptbench.models.groups import select
from conceptbench.models.info import BaseInfo
from conceptbench.models.rows import TEXT_ROWS
from conceptbench.models.runtime import Runtime

Prediction = Literal["eps", "x0", "native"]
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Site:
    """One cross-attention layer: its dotted name, the module, and where it is (``down``, ``mid`` or ``up``)."""

    name: str
    module: nn.Module
    place: str


@dataclass(frozen=True)
class Draws:
    """What an objective draws at random for N examples.

    Attributes:
        noise: (N, ...) standard normal: of the latents, or of an autoencoder's code.
        t: (N,) int64 timesteps; zeros for a model that has none.
    """

    noise: Tensor
    t: Tensor


class Base(ABC):
    """A loaded model that draws what a condition says.

    Args:
        info: identity and hashes.
        pipeline: networks and what belongs to them, by name (``components``), as diffusers pipelines have them.
    """

    component: ClassVar[str] = "unet"
    """The network that is trained and edited."""
    clips: ClassVar[bool] = False
    """Whether sampling keeps its guess of the clean latents in [-1, 1]."""

    def __init__(self, info: BaseInfo, pipeline: Any) -> None:
        self.info = info
        self.pipeline: Any = pipeline
        self.network: Any = pipeline.components[self.component]
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        self._cache: dict[str, Encoded] = {}
        self.evaluations = 0
        self.sampling_threads: int | None = None  # of whole trajectories, where training has fewer
        self.runtime: Runtime | None = None  # set while an erasure that changes sampling is applied
        self._autocast: torch.dtype | None = None  # of sampling
        self._compiled: Any = None  # the network's forward for sampling, if it is compiled
        self._fast = False
        self._hook = self.network.register_forward_pre_hook(self._count, with_kwargs=True)

    # -- structure ---------------------------------------------------------------------------------------------------
    def modules(self) -> dict[str, nn.Module]:
        """The pipeline's networks by component name."""
        return {k: v for k, v in self.pipeline.components.items() if isinstance(v, nn.Module)}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype."""
        return next(self.network.parameters()).dtype  # type: ignore[no-any-return]

    def parameters(self, group: str) -> dict[str, nn.Parameter]:
        """The network's parameters in a named group (:mod:`conceptbench.models.groups`)."""
        return select(self.network, group)

    def attention_sites(self, place: str = "all") -> list[Site]:  # noqa: ARG002 - families use it
        """Cross-attention layers in ``down``, ``mid``, ``up``, ``mid+up`` or ``all`` blocks, in module order."""
        return []

    def sample_with(self, precision: str = "fp32", *, compiled: bool = False) -> None:
        """How images are drawn; erasers always train in the weights' own precision. Part of every image's key.

        Args:
            precision: ``fp32``, or ``bf16`` or ``fp16`` for autocast of the network.
            compiled: compile the network (slow at first; weights may still be swapped).

        Raises:
            UserInputError: there is no such precision.
        """
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        self._autocast = PRECISIONS[precision]
        self._compiled = torch.compile(self.network.forward) if compiled else None
        if self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        self.info = replace(self.info, precision=precision + ("-compiled" if compiled else ""))

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside, the network runs as :meth:`sample_with` said; outside it is plain, for training and for teachers."""
        self._fast = True
        try:
            with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
                yield
        finally:
            self._fast = False

    def _count(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.evaluations += len(args[0] if args else kwargs["sample"])

    def _has_no(self, what: str) -> NoReturn:
        raise UserInputError(f"{self.info.id}, of family {self.info.family!r}, has no {what}", "use a base of another family")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it is conditioned on, in the network's order; empty if it is conditioned on texts."""
        return ()

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

    def tokenize(self, text: str) -> list[int]:  # noqa: ARG002 - families use it
        """Token ids of a text as the (first) encoder sees them: padded, with start and end."""
        self._has_no("tokens")

    def token_positions(self, text: str, phrase: str) -> list[int]:  # noqa: ARG002 - families use it
        """Positions of the last occurrence of a phrase's tokens in an encoded text; empty if it is not there."""
        self._has_no("tokens")

    @property
    def exact_rows(self) -> int | None:
        """Rows of every forward while sampling on a CPU (:mod:`conceptbench.models.rows`): few for a large model; None elsewhere."""
        if self.device.type != "cpu":
            return None
        return 64 if sum(p.numel() for p in self.network.parameters()) < 50_000_000 else 4

    # -- the objective -----------------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def timesteps(self) -> int:
        """How many timesteps the objective is a sum over; 1 for a model without any."""

    @abstractmethod
    def noise_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of :attr:`Draws.noise` for latents x."""

    @abstractmethod
    def objective(self, x: Tensor, encoded: Encoded, draws: Draws) -> Tensor:
        """The model's own training objective per example, for given draws: squared error of noise (or v), or the negative ELBO. Returns (N,)."""

    def draws(self, x: Tensor, generator: torch.Generator, t: Tensor | None = None) -> Draws:
        """Noise, and timesteps uniform over all, for latents x, from a CPU generator; given timesteps are used as they are."""
        noise = torch.randn(self.noise_shape(x), generator=generator).to(x)
        t = torch.randint(self.timesteps, (len(x),), generator=generator) if t is None else t
        return Draws(noise, t.to(x.device))

    def loss(self, x: Tensor, encoded: Encoded, generator: torch.Generator) -> Tensor:
        """The objective per example at a random timestep. Returns (N,)."""
        return self.objective(x, encoded, self.draws(x, generator))

    # -- diffusion ---------------------------------------------------------------------------------------------------
    @property
    def alphas(self) -> Tensor:
        """(T,) cumulative products of 1 - beta."""
        self._has_no("noise schedule")

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002 - families use it
        """x_t = sqrt(a_t) x + sqrt(1 - a_t) noise."""
        self._has_no("noise schedule")

    def predict(self, x_t: Tensor, t: Tensor, encoded: Encoded, to: Prediction = "eps") -> Tensor:  # noqa: ARG002 - families use it
        """The denoiser's answer, converted from what it was trained to predict.

        Args:
            x_t: (N, C, h, w) noisy latents.
            t: (N,) or scalar int64 timesteps.
            encoded: N encoded conditions.
            to: ``eps`` (noise), ``x0`` (clean latents) or ``native`` (unchanged).

        Returns:
            (N, C, h, w).
        """
        self._has_no("denoiser")

    def predict_exactly(self, x_t: Tensor, t: Tensor, encoded: Encoded) -> Tensor:  # noqa: ARG002 - families use it
        """The native prediction, in blocks of :attr:`exact_rows` rows. t: scalar."""
        self._has_no("denoiser")

    def convert(self, out: Tensor, x_t: Tensor, t: Tensor, to: Prediction) -> Tensor:  # noqa: ARG002 - families use it
        """Converts a native prediction (epsilon or v) to noise or clean latents."""
        self._has_no("denoiser")

    def native_goal(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002 - families use it
        """What the denoiser was trained to predict for clean latents x with noise at timesteps t: the noise, or v. (N, C, h, w)."""
        self._has_no("denoiser")

    # -- pixels ------------------------------------------------------------------------------------------------------
    @property
    def factor(self) -> int:
        """Pixels a latent cell."""
        return 1

    @abstractmethod
    def latent_shape(self, size: int | None) -> tuple[int, int, int]:
        """(C, h, w) of an image of ``size`` pixels, or of the base's own size."""

    def initial_noise(self, seeds: Sequence[int], size: int | None = None) -> Tensor:
        """(N, C, h, w): one CPU generator an image, drawn in fp32 and then cast, so that noise depends on the seed alone."""
        return self._noise(self.latent_shape(size), seeds)

    def _noise(self, shape: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(self.device, self.dtype)

    @abstractmethod
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """(N, C, h, w) latents to (N, H, W, 3) uint8."""

    @abstractmethod
    def latents_of(self, images: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 to scaled latents (N, C, h, w)."""

    def redrawn(self, x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - families use it
        """Draws of p(x | c) where ``sample`` gives its means, in latents (N, C, h, w); elsewhere x is a draw already and comes back."""
        return x

    # -- sampling ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int], sampler: Sampler, until: int | None = None) -> NDArray[np.uint8] | Tensor:
        """Draws images, or with ``until`` = k the latents after k denoising steps (k = 0: the initial noise)."""

    @contextmanager
    def swapped(self, values: dict[str, Tensor]) -> Iterator[None]:
        """The network with some parameters' values replaced, e.g. a teacher's. Leave it before ``backward``."""
        parameters = dict(self.network.named_parameters())
        old = {n: parameters[n].data for n in values}
        try:
            for name, value in values.items():
                parameters[name].data = value
            yield
        finally:
            for name, value in old.items():
                parameters[name].data = value
