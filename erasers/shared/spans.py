"""Which token embeddings of a prompt stand for a concept."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base

Span = Literal["last", "end"]


def last_token(base: Base, text: str, phrase: str) -> int:
    """Position of the phrase's last token in the encoded text; 0 (the start token) for an empty phrase, as in UCE's code.

    Raises:
        UserInputError: the phrase is not in the text as the tokenizer sees it (e.g. cut off).
    """
    if not phrase.strip():
        return 0
    positions = base.token_positions(text, phrase)
    if not positions:
        raise UserInputError(f"the tokens of {phrase!r} are not in {text!r} as the base encodes it", "shorten the text, or use another template")
    return positions[-1]


def all_tokens(base: Base, text: str) -> Tensor:
    """(L, D) embeddings of a text, padding included."""
    return base.encode([text]).hidden[0]


def aligned_tokens(base: Base, text: str, phrase: str, guide_text: str, guide_phrase: str, span: Span) -> tuple[Tensor, Tensor]:
    """Embeddings of the concept's tokens and of the guide's tokens that they are to become, row by row.

    Args:
        base: encodes.
        text: a prompt.
        phrase: the concept's phrase in it.
        guide_text: the prompt with the guide instead.
        guide_phrase: the guide's phrase in that.
        span: ``last``: the last token of each; ``end``: from there to the end of the padding, cut to the same length.

    Returns:
        Two (n, D) tensors.
    """
    a, b = last_token(base, text, phrase), last_token(base, guide_text, guide_phrase)
    x, y = all_tokens(base, text), all_tokens(base, guide_text)
    n = 1 if span == "last" else len(x) - max(a, b)
    return x[a : a + n], y[b : b + n]
