"""What the cross-attention layers of a forward compute, with gradients, whatever attention processor runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from conceptbench.core.errors import ConceptBenchError
from conceptbench.models.attention_maps import attention_probabilities
from conceptbench.models.base import Base, Site


@dataclass(frozen=True)
class Attended:
    """One cross-attention layer in one forward.

    Attributes:
        site: the layer.
        query: (N, Q, heads * d), with its graph.
        key: (N, L, heads * d), with its graph.
    """

    site: Site
    query: Tensor
    key: Tensor

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.site.module.heads)  # type: ignore[arg-type]

    def probabilities(self) -> Tensor:
        """(N, heads, Q, L) float32 in [0, 1]: ``softmax(Q K^T / sqrt(d))``."""
        return attention_probabilities(self.query, self.key, self.heads)

    def logits(self, key: Tensor) -> Tensor:
        """(N, heads, Q, L) float32: ``Q K^T / sqrt(d)`` for keys of one's own, of the same shape as the layer's."""
        q, k = (x.float().unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query, key))
        return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


@contextmanager
def cross_attention(base: Base, place: str = "all") -> Iterator[list[Attended]]:
    """Inside, every forward of the denoiser appends its cross-attention layers to the list, in the order in which they run.

    It listens to what ``to_q`` and ``to_k`` answer, so queries and keys are those that the output is made of. Use the list
    after leaving: further calls of ``to_k`` are not recorded then.

    Args:
        base: with autograd on or off.
        place: which layers, see :meth:`Base.attention_sites`.

    Raises:
        ConceptBenchError: there is no layer in ``place``, or a forward was run and one of them did not answer through ``to_q`` and ``to_k``.
    """
    sites = base.attention_sites(place)
    if not sites:
        raise ConceptBenchError(f"the base {base.info.id!r} has no cross-attention in {place!r}", "the base is of another architecture")
    layers: list[Attended] = []
    answers: dict[tuple[str, str], Tensor] = {}

    def keeper(site: Site, part: str) -> Any:
        return lambda _module, _inputs, output: answers.__setitem__((site.name, part), output)

    def finisher(site: Site) -> Any:
        def finish(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            try:
                layers.append(Attended(site, answers.pop((site.name, "to_q")), answers.pop((site.name, "to_k"))))
            except KeyError:
                raise ConceptBenchError(f"no attention was recorded at {site.name}", "fused projections call no hooks: unfuse them") from None

        return finish

    with ExitStack() as hooks:
        for site in sites:
            for part in ("to_q", "to_k"):
                hooks.enter_context(getattr(site.module, part).register_forward_hook(keeper(site, part)))
            hooks.enter_context(site.module.register_forward_hook(finisher(site)))
        yield layers
