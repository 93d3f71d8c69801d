"""Unified Concept Editing (Gandikota et al. 2024): a closed form for the key and value projections of cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.spans import Span, aligned_tokens, all_tokens, check_anchors
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Supports
from conceptbench.models.erasure import Erasure


class UCEConfig(EraserConfig):
    """Options; the authors' original and new code differ in most of them, see the presets.

    Attributes:
        span: which tokens of a target are edited: its ``last`` one, or from its last one to the ``end`` of the padding.
        guide: what targets become: their ``anchor``, or a text of its own such as ``""``.
        preserve: keep the retained concepts.
        preserve_empty: keep the empty prompt.
        preserve_span: ``all`` tokens of what is kept, or its ``last``.
        erase_scale: alpha_e.
        preserve_scale: alpha_p; None for max(0.1, 1 / number of kept texts).
        ridge: lambda, the pull towards the old weights.
        prefix: pair the tokens before those of a target, which are the same in the guide's text, with themselves, as TIME does.
        texts: in how many of its training templates each phrase of a concept is used; 1 is the bare phrase.
    """

    span: Span = "end"
    guide: str = "anchor"
    preserve: bool = True
    preserve_empty: bool = True
    preserve_span: Literal["all", "last"] = "all"
    erase_scale: float = Field(default=1.0, ge=0)
    preserve_scale: float | None = Field(default=None, ge=0)
    ridge: float = Field(default=0.5, gt=0)
    prefix: bool = False
    texts: int = Field(default=1, ge=1)


def closed_form(weight: Tensor, erase: Tensor, guide: Tensor, keep: Tensor, *, ridge: float, erase_scale: float, preserve_scale: float) -> Tensor:
    """The minimiser of a_e sum |W' c - W g|^2 + a_p sum |W' p - W p|^2 + ridge |W' - W|^2 (UCE, eq. 7).

    Args:
        weight: (out, d) W.
        erase: (n, d) rows c.
        guide: (n, d) rows g, one for each c.
        keep: (m, d) rows p.
        ridge: lambda.
        erase_scale: a_e.
        preserve_scale: a_p.

    Returns:
        (out, d) W', computed in float64.
    """
    w, c, g, p = (x.double() for x in (weight, erase, guide, keep))
    left = ridge * torch.eye(w.shape[1], dtype=torch.float64, device=w.device) + erase_scale * c.T @ c + preserve_scale * p.T @ p
    right = ridge * w + erase_scale * (g @ w.T).T @ c + preserve_scale * (p @ w.T).T @ p
    return torch.linalg.solve(left, right.T).T.to(weight.dtype)


def shared_tokens(base: Base, text: str, guide: str) -> Tensor:
    """(n, D) embeddings of the tokens that two texts begin with alike, the start token among them; an encoder that is causal gives the same for both."""
    same = [a == b for a, b in zip(base.tokenize(text), base.tokenize(guide), strict=True)]
    return all_tokens(base, text)[: (*same, False).index(False)]


class UCE(Eraser[UCEConfig]):
    """Replaces every attn2 K and V by the closed form; no data, no training."""

    name = "uce"
    summary = "closed-form edit of cross-attention keys and values, target to anchor"
    reference = "Gandikota et al. 2024, arXiv:2308.14761"
    Config: ClassVar[type[EraserConfig]] = UCEConfig
    variants = MappingProxyType({"": {}, "plain": {"preserve": False}})
    supports = Supports(iterative=True)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: UCEConfig) -> None:  # noqa: ARG003 - any base will do
        """Refuses anchors that are erased themselves, where they are the guide."""
        if config.guide == "anchor":
            check_anchors(request)

    def erase(self, base: Base, request: EraseRequest, config: UCEConfig, ctx: Context) -> Erasure:
        """Edits all targets at once."""
        base.encode([text for c in request.targets for text, _, guide, _ in self._pairs(c, config) for text in (text, guide)])  # in whole batches
        pairs = [aligned_tokens(base, *pair, config.span) for concept in request.targets for pair in self._pairs(concept, config)]
        if config.prefix:
            pairs += [(x, x) for c in request.targets for text, _, guide, _ in self._pairs(c, config) for x in [shared_tokens(base, text, guide)]]
        erase, guide = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
        kept = [(t, p) for c in request.retained for p in c.phrases for t in [tpl.format(p) for tpl in c.templates][: config.texts]] if config.preserve else []
        base.encode(["", *(text for text, _ in kept)])
        keep = self._kept(base, kept, config).to(erase)
        scale = config.preserve_scale if config.preserve_scale is not None else max(0.1, 1 / max(1, len(kept) + config.preserve_empty))
        parameters = base.parameters("kv")
        edited = {
            name: closed_form(w.detach(), erase.to(w), guide.to(w), keep.to(w), ridge=config.ridge, erase_scale=config.erase_scale, preserve_scale=scale)
            for name, w in parameters.items()
        }
        ctx.progress(0, 1, 0.0)
        return Erasure.additive({n: w.detach() for n, w in parameters.items()}, edited)

    def _pairs(self, concept: Concept, config: UCEConfig) -> list[tuple[str, str, str, str]]:
        """(text, phrase in it, guide text, phrase in it) for every training text of a target."""
        found = []
        for phrase in concept.phrases:
            for template in concept.templates[: config.texts]:
                to = concept.anchor if config.guide == "anchor" else config.guide
                found.append((template.format(phrase), phrase, template.format(to) if to.strip() else to, to))
        return found

    def _kept(self, base: Base, texts: Sequence[tuple[str, str]], config: UCEConfig) -> Tensor:
        parts = [all_tokens(base, "")] if config.preserve_empty else []
        for text, phrase in texts:
            parts.append(all_tokens(base, text) if config.preserve_span == "all" else aligned_tokens(base, text, phrase, text, phrase, "last")[0])
        return torch.cat(parts) if parts else torch.zeros(0, base.encode([""]).hidden.shape[-1])
