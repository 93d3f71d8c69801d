"""How near the denoiser comes to the matrix-product floor: the time that its arithmetic alone would take on this machine.

floor = FLOPs of one forward / GEMM rate; share = floor / measured time of that forward.

FLOPs: ``torch.utils.flop_counter.FlopCounterMode`` on the very inputs of a sampling forward (products of linear layers,
convolutions and attention; a multiplication and an addition are two). What it does not count, norms and activations, is not in the
floor, so the share cannot reach 1.

GEMM rate: ``torch.mm`` in float32 at the sizes that the denoiser's own layers have as matrix products (positions x inputs by
inputs x outputs; a 3 x 3 convolution of C channels has 9 C inputs), as far as a size has 1 % of the FLOPs, and at a big square,
each with the second matrix as it is and transposed (as ``Linear`` keeps it). The best of all is the rate: a slower one would
flatter us. A second row, of which nothing is required, gives each layer the best rate of its own size instead: what is missing
there is time in norms, activations, copies and attention, and convolutions that are slower than a product of their size.

Time: forward hooks on the denoiser inside :func:`conceptbench.models.sampling.denoise`, full blocks of rows only; the median
forward of a round. Rounds of products and of sampling take turns, and each round has a share of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.measuring import ForwardClock, Row, Settings, median_seconds, middle, planned, spaced
from conceptbench.engine.images import ImageSpec
from conceptbench.models.base import Base
from conceptbench.models.sampling import denoise, threads

REQUIRED = 0.80
ROUNDS = 9
LEAST = 0.01
"""Share of the layers' FLOPs that a size needs to be timed."""
SQUARE = 2048
BATCH = 32
Size = tuple[int, int, int]
"""rows, inputs and outputs of a matrix product."""


def run(settings: Settings) -> list[Row]:
    """Two rows: the share of the floor, and of a floor with each layer at the rate of its own size."""
    base, plan = planned(settings)
    specs = spaced(plan.distinct_base_images(), min(settings.images, BATCH))
    with threads(settings.threads):
        forward = one_forward(base, specs)
        work = Work(flops_of(base, forward), product_sizes(base, forward), len(forward["sample"]))
        products = [Product(size, flip) for size in (*work.worth_timing(), (SQUARE,) * 3) for flip in (False, True)]
        sample_seconds(base, specs)
        rounds = [(rates(products), sample_seconds(base, specs)) for _ in range(settings.rounds_or(ROUNDS))]
    return rows(work, products, rounds)


@dataclass(frozen=True)
class Work:
    """The arithmetic of one forward.

    Attributes:
        flops: all that torch counts.
        layers: linear layers and convolutions as matrix products, size -> FLOPs.
        rows: latents in it, padding included.
    """

    flops: int
    layers: dict[Size, int]
    rows: int

    def worth_timing(self) -> list[Size]:
        """The sizes with the most FLOPs, largest first."""
        return sorted((s for s, f in self.layers.items() if f >= LEAST * self.flops), key=lambda s: -self.layers[s])

    def own_sizes_seconds(self, best: Mapping[Size, float]) -> float:
        """The floor with each layer at the rate (FLOP/s) of its own size, and what was not timed at the best rate of all."""
        timed = {s: f for s, f in self.layers.items() if s in best}
        return sum(f / best[s] for s, f in timed.items()) + (self.flops - sum(timed.values())) / max(best.values())


def best_by_size(products: Sequence[Product], rate: Sequence[float]) -> dict[Size, float]:
    """Size -> the better rate of its products."""
    best: dict[Size, float] = {}
    for product, r in zip(products, rate, strict=True):
        best[product.size] = max(r, best.get(product.size, 0.0))
    return best


def rows(work: Work, products: Sequence[Product], rounds: Sequence[tuple[list[float], float]]) -> list[Row]:
    """The table's rows from each round's rates (FLOP/s, one a product) and seconds of a forward."""
    share, spread = middle([work.flops / max(rate) / seconds for rate, seconds in rounds])
    own_share, own_spread = middle([work.own_sizes_seconds(best_by_size(products, rate)) / seconds for rate, seconds in rounds])
    typical = [statistics.median(r[i] for r, _ in rounds) for i in range(len(products))]
    best = max(range(len(products)), key=lambda i: typical[i])
    seconds = statistics.median(s for _, s in rounds)
    how = (
        f"{work.flops / work.rows / 1e9:.3f} GFLOP a row, {work.rows} rows a forward, {seconds * 1e3:.0f} ms in the median; "
        f"best product {products[best]}; {SQUARE} square {max(typical[-2:]) / 1e9:.0f} GFLOP/s"
    )
    achieved = f"{work.flops / seconds / 1e9:.0f} GFLOP/s"
    own = f"{work.flops / statistics.median(work.own_sizes_seconds(best_by_size(products, r)) for r, _ in rounds) / 1e9:.0f} GFLOP/s (mm)"
    lines = f"{len(work.worth_timing())} sizes, from {min(typical) / 1e9:.0f} to {max(typical) / 1e9:.0f} GFLOP/s"
    return [
        Row("matmul floor", achieved, f"{typical[best] / 1e9:.0f} GFLOP/s (mm)", share, "%", ("at least", REQUIRED), spread, how),
        Row("matmul floor: own sizes", achieved, own, own_share, "%", None, own_spread, f"each layer at the rate of its own size: {lines}"),
    ]


class Product:
    """One matrix product, ready to be timed."""

    def __init__(self, size: Size, transposed: bool) -> None:
        rows, inputs, outputs = size
        self.size, self.transposed = size, transposed
        self.a = torch.randn(rows, inputs)
        self.b = torch.randn(outputs, inputs).t() if transposed else torch.randn(inputs, outputs)
        self.out = torch.empty(rows, outputs)

    def rate(self, at_least: float = 0.05) -> float:
        """FLOP/s of the median call within so many seconds."""
        rows, inputs, outputs = self.size
        return 2 * rows * inputs * outputs / median_seconds(lambda: torch.mm(self.a, self.b, out=self.out), at_least)

    def __str__(self) -> str:
        rows, inputs, outputs = self.size
        return f"{rows} x {inputs} x {outputs}{' (transposed)' if self.transposed else ''}"


def rates(products: Sequence[Product]) -> list[float]:
    """FLOP/s of each product."""
    return [p.rate() for p in products]


def one_forward(base: Base, specs: Sequence[ImageSpec]) -> dict[str, Any]:
    """The arguments of the denoiser's first forward while it draws these images, by name."""
    seen: list[dict[str, Any]] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append({**dict(zip(("sample", "timestep"), args, strict=False)), **kwargs})

    handle = base.unet.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        denoise(base, [s.condition for s in specs], [s.seed for s in specs], specs[0].sampler, until=1)
    finally:
        handle.remove()
    return seen[0]


def flop_counter() -> FlopCounterMode:
    """Torch's counter; it does not know by itself the attention that torch may choose on a CPU."""

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention})


@torch.inference_mode()
def flops_of(base: Base, forward: dict[str, Any]) -> int:
    """FLOPs of a forward, as torch counts them."""
    with flop_counter() as counter:
        base.unet(**forward)
    return counter.get_total_flops()


@torch.inference_mode()
def product_sizes(base: Base, forward: dict[str, Any]) -> dict[Size, int]:
    """The linear layers and convolutions of a forward as matrix products: size -> FLOPs of all layers of that size."""
    found: dict[Size, int] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        size = product_size(module, args[0], out)
        rows, inputs, outputs = size
        found[size] = found.get(size, 0) + 2 * rows * inputs * outputs

    handles = [m.register_forward_hook(note) for m in base.unet.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    try:
        base.unet(**forward)
    finally:
        for handle in handles:
            handle.remove()
    return found


def product_size(module: nn.Module, x: Tensor, out: Tensor) -> Size:
    """Rows, inputs and outputs of a layer as a matrix product; x: what it was given."""
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return out.numel() // out.shape[1], module.in_channels // module.groups * int(height) * int(width), module.out_channels
    assert isinstance(module, nn.Linear)
    return x.numel() // module.in_features, module.in_features, module.out_features


def sample_seconds(base: Base, specs: Sequence[ImageSpec]) -> float:
    """Seconds of the median denoiser forward while these images are drawn, all steps."""
    clock = ForwardClock()
    clock.watch("denoiser", base.unet)
    try:
        with base.drawing():
            denoise(base, [s.condition for s in specs], [s.seed for s in specs], specs[0].sampler)
    finally:
        clock.close()
    return statistics.median(clock.calls["denoiser"])
