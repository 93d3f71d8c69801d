"""What a text encoder makes of texts and of vectors in the place of tokens: pooled states, and conditions for the denoiser.

The vectors stand where the ``{}`` of a template is. No token is added to the tokenizer and no weight is touched: hooks
exchange the token ids and their embeddings on the way through the encoder, so that positions, causal mask and everything after it are the
encoder's own. Shapes: N rows, k vectors a row, W the widths of the base's text encoders together (Stable Diffusion XL has two).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base
from conceptbench.models.conditions import Encoded
from conceptbench.models.rows import TEXT_ROWS, padded

ROWS = 4
"""On a CPU a forward of a multiple of so many rows gives a row the same bytes beside any others."""


@dataclass(frozen=True)
class TextEncoder:
    """One of a base's text encoders with its tokenizer."""

    tokenizer: Any
    module: nn.Module

    @property
    def table(self) -> Tensor:
        """(vocabulary, width): the embeddings of its tokens."""
        return self.module.get_input_embeddings().weight.data  # type: ignore[operator]

    @property
    def length(self) -> int:
        """Tokens that a text is padded to."""
        return int(self.tokenizer.model_max_length)

    def plain(self, text: str) -> list[int]:
        """The ids of a text without start, end and padding."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids) if text.strip() else []


def text_encoders(base: Base) -> list[TextEncoder]:
    """The base's text encoders, in the order in which their states stand in :class:`Encoded`.

    Raises:
        UserInputError: one of them is no CLIP: vectors cannot be put in the place of its tokens here.
    """
    found = [(n, m) for n, m in base.modules().items() if n.startswith("text_encoder")]
    for name, module in found:
        if not hasattr(getattr(module, "config", None), "eos_token_id") or "CLIPText" not in type(module).__name__:
            raise UserInputError(
                f"textual inversion: {name} of base {base.info.id!r} is a {type(module).__name__}, which is not supported", "supported: CLIP text encoders"
            )
    if not found:
        raise UserInputError(f"textual inversion: base {base.info.id!r} has no text encoder")
    return [TextEncoder(base.pipeline.components[name.replace("text_encoder", "tokenizer")], module) for name, module in found]


def widths(base: Base) -> list[int]:
    """The width of each text encoder's token embeddings; W is their sum."""
    return [e.table.shape[1] for e in text_encoders(base)]


def first_eos(ids: Tensor, eos: int) -> Tensor:
    """(N,) positions of the first end of text in (N, L) ids.

    Not the largest id, as the library's pooling has it for configurations with ``eos_token_id`` 2, and not the last one: some
    tokenizers pad with the end of text.
    """
    return (ids == eos).int().argmax(-1)


def token_layout(encoder: TextEncoder, template: str, slots: int) -> tuple[list[int], int]:
    """Padded ids of a template with room for some vectors, and where the first of these is.

    Args:
        encoder: whose tokens.
        template: a text with one ``{}``; what is behind it is cut off where it does not fit.
        slots: vectors in the place of ``{}``.

    Raises:
        UserInputError: the template has not one ``{}``, or there is no room for the vectors.
    """
    if template.count("{}") != 1:
        raise UserInputError(f"template {template!r} needs exactly one {{}}", 'for example "a photo of {}"')
    before, after = (encoder.plain(part) for part in template.split("{}"))
    tokenizer, start = encoder.tokenizer, 1 + len(before)
    if start + slots > encoder.length - 1:
        raise UserInputError(f"{slots} tokens do not fit behind {template.split('{}')[0]!r}: a text has {encoder.length} with start and end", "use fewer")
    room = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
    words = [*before, *([room] * slots), *after][: encoder.length - 2]
    ids = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (encoder.length - len(ids)), start


@contextmanager
def _vectors_in(encoder: TextEncoder, templates: Sequence[str], vectors: Tensor) -> Iterator[None]:
    """Inside, the encoder sees these templates with (N, k, width) vectors in them, whatever ids it is given."""
    layouts = [token_layout(encoder, t, vectors.shape[1]) for t in templates]
    device = encoder.table.device
    ids = torch.tensor([row for row, _ in layouts], device=device)
    places = torch.tensor([start for _, start in layouts], device=device)[:, None] + torch.arange(vectors.shape[1], device=device)

    def embed(_module: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
        filled = embedded.clone()
        filled[torch.arange(len(filled), device=device)[:, None], places] = vectors.to(filled)
        return filled

    hooks = [
        encoder.module.register_forward_pre_hook(lambda _module, args: (ids, *args[1:])),
        encoder.module.get_input_embeddings().register_forward_hook(embed),  # type: ignore[operator]
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _pooling(encoder: TextEncoder, found: list[Tensor]) -> Iterator[None]:
    """Appends the encoder's state at the end of each text that goes through it, at length 1."""

    def take(_module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        states = out.last_hidden_state
        at_end = states[torch.arange(len(states), device=states.device), first_eos(args[0], encoder.tokenizer.eos_token_id)]
        found.append(nn.functional.normalize(at_end.float(), dim=-1))

    hook = encoder.module.register_forward_hook(take)
    try:
        yield
    finally:
        hook.remove()


def encode_both(base: Base, templates: Sequence[str], vectors: Tensor) -> tuple[Encoded, Tensor]:
    """Conditions and pooled states of templates with vectors in them, with gradients to the vectors.

    Args:
        base: the model, with whatever erasure is applied to it.
        templates: N texts, each with one ``{}``.
        vectors: (N, k, W).

    Returns:
        N conditions; (N, W) pooled states as of :func:`pooled_texts`.
    """
    encoders, rows = text_encoders(base), -(-len(templates) // ROWS) * ROWS
    if vectors.ndim != 3 or vectors.shape[0] != len(templates) or vectors.shape[2] != sum(widths(base)):
        raise UserInputError(
            f"vectors of shape {tuple(vectors.shape)} do not fit {len(templates)} texts and base {base.info.id!r}",
            f"wanted: ({len(templates)}, tokens, {sum(widths(base))})",
        )
    texts, filling = [*templates, *[templates[-1]] * (rows - len(templates))], padded(vectors, rows)
    pooled: list[Tensor] = []
    with ExitStack() as stack:
        for encoder, part in zip(encoders, filling.split(widths(base), -1), strict=True):
            stack.enter_context(_vectors_in(encoder, texts, part))
            stack.enter_context(_pooling(encoder, pooled))
        encoded = base._encode_texts([""] * rows)
    return encoded[: len(templates)], torch.cat(pooled, -1)[: len(templates)]


def encode_with(base: Base, template: str, vectors: Tensor) -> Encoded:
    """Conditions for the denoiser: a template with vectors in the place of ``{}``, with gradients to them.

    Args:
        base: the model, with whatever erasure is applied to it.
        template: a text with one ``{}``, e.g. ``a photo of {}``.
        vectors: (N, k, W), or (k, W) for one row.

    Returns:
        N conditions.
    """
    vectors = vectors if vectors.ndim == 3 else vectors[None]
    return encode_both(base, [template] * len(vectors), vectors)[0]


@torch.no_grad()
def pooled_with(base: Base, template: str, vectors: Tensor) -> Tensor:
    """(N, W) pooled states of a template with (N, k, W) vectors in the place of ``{}``; see :func:`pooled_texts`."""
    return encode_both(base, [template] * len(vectors), vectors)[1]


@torch.no_grad()
def pooled_texts(base: Base, texts: Sequence[str]) -> Tensor:
    """The text encoder's state at the end of each text.

    Behind the final layer norm and not projected: Stable Diffusion's encoders have no projection, and that of Stable
    Diffusion XL's second one is not used.

    Args:
        base: the model, with whatever erasure is applied to it.
        texts: N of them; what is too long is cut as for the denoiser.

    Returns:
        (N, W) float32. Each encoder's part has length 1, so that a cosine is the mean of the encoders' cosines.
    """
    parts = []
    for start in range(0, len(texts), TEXT_ROWS):
        block = list(texts[start : start + TEXT_ROWS])
        pooled: list[Tensor] = []
        with ExitStack() as stack:
            for encoder in text_encoders(base):
                stack.enter_context(_pooling(encoder, pooled))
            base._encode_texts(block + [block[-1]] * (TEXT_ROWS - len(block)))
        parts.append(torch.cat(pooled, -1)[: len(block)])
    return torch.cat(parts)


@contextmanager
def pseudo_words(base: Base, conditions: Mapping[str, Encoded]) -> Iterator[None]:
    """Inside, :meth:`Base.encode` and :meth:`Base.sample` know these texts by the conditions given for them.

    Args:
        base: the model.
        conditions: made-up text -> one row, e.g. of :func:`encode_with`.
    """
    before = {t: base._cache[t] for t in conditions if t in base._cache}
    base._cache.update({t: e.to(e.hidden.device, e.hidden.dtype) for t, e in conditions.items()})
    try:
        yield
    finally:
        for text in conditions:
            base._cache.pop(text, None)
        base._cache.update(before)
