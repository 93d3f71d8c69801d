"""Attribution maps: where in an image the cross-attention looks at a phrase, by head (DAAM).

Tang et al. 2023, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", sec. 3: the probabilities
``softmax(Q K^T / sqrt(d))`` of the phrase's tokens in the conditional half of guidance, averaged over denoising steps and
layers, every layer enlarged to the latents' size by bicubic interpolation and clamped at 0. Where this differs from their
code: the phrase's tokens are summed, not averaged (a constant factor, which makes a map the share of the attention that the
phrase gets), and the mid block counts unless ``place`` leaves it out (``down+up`` is theirs).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.models.base import Base, Site
from conceptbench.models.conditions import Condition
from conceptbench.models.runtime import Runtime
from conceptbench.models.sampling import denoise

ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True)
class Maps:
    """Attribution maps of N images.

    Attributes:
        heads: (N, heads, h, w) float32 in [0, 1]: the share of each cell's attention that the phrase gets, by head; only over
            the sites that have the most common number of heads (:func:`common_heads`).
        mean: (N, h, w) float32 in [0, 1]: the mean over all heads of all sites, each head of each site counting once.
        latents: (N, C, h, w) what was drawn, for :meth:`Base.decode`.
    """

    heads: NDArray[np.float32]
    mean: NDArray[np.float32]
    latents: Tensor


def attention_probabilities(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """``softmax(Q K^T / sqrt(d))`` by head, in float32 whatever the inputs are.

    Args:
        query: (N, Q, heads * d).
        key: (N, L, heads * d).
        heads: number of heads.

    Returns:
        (N, heads, Q, L); each row sums to 1.
    """
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)


def common_heads(counts: Sequence[int]) -> int:
    """The number of heads that most sites have; among equally common ones the larger. SD 1: 8 everywhere; SD 2.1: 20."""
    return max(Counter(counts).items(), key=lambda item: (item[1], item[0]))[0]


def enlarged(maps: Tensor, side: int) -> Tensor:
    """(N, heads, Q) maps over Q = s * s cells to (N, heads, side, side): bicubic, clamped at 0 against undershoot (DAAM)."""
    small = math.isqrt(maps.shape[-1])
    square = maps.unflatten(-1, (small, small))
    return square if small == side else nn.functional.interpolate(square, size=(side, side), mode="bicubic", align_corners=False).clamp(min=0)


def merged(by_site: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor]:
    """Averages over sites.

    Args:
        by_site: (N, heads, Q) each; heads and Q may differ.
        side: cells a side of the result.

    Returns:
        (N, heads, side, side) over the sites with the most common number of heads, and (N, side, side) over all.
    """
    count = common_heads([maps.shape[1] for maps in by_site])
    heads, everything = by_site[0].new_zeros(()), by_site[0].new_zeros(())
    sites = all_heads = 0
    for maps in by_site:
        large = enlarged(maps, side)
        everything, all_heads = everything + large.sum(1), all_heads + large.shape[1]
        if large.shape[1] == count:
            heads, sites = heads + large, sites + 1
    return heads / sites, everything / all_heads


class _Recorder:
    """Sums a phrase's attention at each site while a base samples.

    It listens to what ``to_q`` and ``to_k`` answer, so it sees the queries and keys that the image is made of, whatever
    processor computes the attention. In each step the rows of all forwards, one after another, are N unconditional ones (with
    guidance), N conditional ones, then what else the runtime or the padding adds: counting rows finds the conditional ones.

    Args:
        sites: where to listen.
        marks: (N, L) float32: 1 at the phrase's tokens.
        first: how many rows stand before the conditional ones.
    """

    def __init__(self, sites: Sequence[Site], marks: Tensor, first: int) -> None:
        self._sites, self._marks, self._first = sites, marks, first
        self._answers: dict[tuple[str, str], Tensor] = {}
        self._rows: Counter[str] = Counter()
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, forwards are recorded; every hook is gone afterwards."""
        with ExitStack() as hooks:
            for site in self._sites:
                for part in ("to_q", "to_k"):
                    hooks.enter_context(getattr(site.module, part).register_forward_hook(self._keeper(site.name, part)))
                hooks.enter_context(site.module.register_forward_hook(self._adder(site.name)))
            yield

    def _keeper(self, site: str, part: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._answers[site, part] = output

        return keep

    def _adder(self, site: str) -> Any:
        def add(module: nn.Module, _inputs: Any, _output: Any) -> None:
            query, key = self._answers.pop((site, "to_q")), self._answers.pop((site, "to_k"))
            before = self._rows[site] - self._first
            self._rows[site] += len(query)
            low, high = max(0, -before), min(len(query), len(self._marks) - before)
            if low < high:
                self._add(site, slice(before + low, before + high), query[low:high], key[low:high], int(module.heads))  # type: ignore[arg-type]

        return add

    def _add(self, site: str, images: slice, query: Tensor, key: Tensor, heads: int) -> None:
        with torch.autocast(query.device.type, enabled=False):  # it would round the products to half precision
            attention = attention_probabilities(query, key, heads)
            if site not in self._sums:
                self._sums[site] = attention.new_zeros(len(self._marks), *attention.shape[1:3])
            self._sums[site][images] += torch.einsum("nhql,nl->nhq", attention, self._marks[images])

    def step(self, _t: Tensor, _x: Tensor, _predictions: Sequence[Tensor]) -> None:
        """An observer of :func:`denoise`: a step is over, rows are counted anew."""
        self._rows.clear()
        self._steps += 1

    def means(self) -> list[Tensor]:
        """(N, heads, Q) of each site: the mean over steps.

        Raises:
            UserInputError: a site's forward ran without its hooks.
        """
        silent = [s.name for s in self._sites if s.name not in self._sums]
        if silent:
            raise UserInputError(f"no attention was recorded at {silent[0]}", "a compiled denoiser calls no hooks: leave out compilation")
        return [self._sums[s.name] / self._steps for s in self._sites]


def phrase_in(base: Base, text: str, phrases: Sequence[str]) -> str | None:
    """The phrase with the most letters that an encoded text holds, without its article; None if it holds none.

    Args:
        base: its tokenizer decides; what it cuts off is not there.
        text: a prompt.
        phrases: ways to say a concept. Without the article because ``a`` looks everywhere and would blur the map.
    """
    bare = {next((p[len(a) :] for a in ARTICLES if p.lower().startswith(a)), p) for p in phrases}
    return next((p for p in sorted(bare, key=lambda p: (-len(p), p)) if base.token_positions(text, p)), None)


def attribution_maps(base: Base, conditions: Sequence[Condition], phrases: Sequence[str], seeds: Sequence[int], sampler: Sampler, place: str = "all") -> Maps:
    """Draws images and maps where the cross-attention looks at a phrase meanwhile. The images are those of :func:`denoise`.

    Args:
        base: with whatever erasure is applied to it.
        conditions: N prompts.
        phrases: one in each; its last occurrence counts, in the text as an erasure's runtime rewrites it. A map is 0 where the
            text does not hold it, or holds it after the encoder's last token.
        seeds: N seeds of the noise.
        sampler: of the images.
        place: which sites, see :meth:`Base.attention_sites`; several are joined by ``+``.

    Raises:
        UserInputError: there is no site in ``place``, or the denoiser is compiled.
    """
    sites = base.attention_sites(place)
    if not sites:
        raise UserInputError(f"the base {base.info.id!r} has no cross-attention in {place!r}", "places: all, or down, mid, up, or several joined by +")
    texts = [c.text for c in (base.runtime or Runtime()).conditions(conditions)]
    marks = torch.zeros(len(texts), len(base.tokenize(texts[0])), device=base.device)
    for row, text, phrase in zip(marks, texts, phrases, strict=True):
        row[base.token_positions(text, phrase)] = 1
    recorder = _Recorder(sites, marks, first=len(texts) if sampler.guidance != 1 else 0)
    with recorder.listening():
        latents = denoise(base, conditions, seeds, sampler, observe=recorder.step)
    heads, mean = merged(recorder.means(), latents.shape[-1])
    return Maps(heads.cpu().numpy(), mean.cpu().numpy(), latents)
