"""What stands for a concept: token embeddings of a prompt, and the anchor that it becomes."""

from __future__ import annotations

import re
from typing import Literal

from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.models.attention_maps import ARTICLES
from conceptbench.models.base import Base
from conceptbench.models.eraser import EraseRequest

Span = Literal["last", "end"]


JOINT = r"(?:(?:\s*,|\s*\b(?:with|of|by|and|in(?:\s+the\s+style\s+of)?))(?:\s+(?:a|an|the))?)?\s*\{\}(?:\s+style\b)?"
"""A template's place for the phrase, with the words that only join the phrase to the rest."""


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


def anchor_text(template: str, anchor: str, *, cut: bool = False) -> str:
    """A template with the anchor in it, or without the phrase and the words that join it, if there is no anchor.

    >>> anchor_text("a photo of a person with {}", ""), anchor_text("a cup in the style of {}", ""), anchor_text("{}", "")
    ('a photo of a person', 'a cup', '')
    >>> anchor_text("a photo of {} at the fair", ""), anchor_text("a photo of {} at the fair", "", cut=True)
    ('a photo at the fair', 'a photo')
    """
    if anchor.strip():
        return template.format(anchor)
    text = re.sub(JOINT + (".*" if cut else ""), "", template)
    return re.sub(r"\s+", " ", text).strip(" ,")


def check_anchors(request: EraseRequest) -> None:
    """Refuses anchors that are erased themselves, whatever the case and the article: a target cannot become what is going too.

    Raises:
        UserInputError: a target's anchor is a phrase of a target, or of what another part of the erasure erases.
    """

    def bare(phrase: str) -> str:
        words = " ".join(phrase.lower().split())
        return next((words[len(a) :] for a in ARTICLES if words.startswith(a)), words)

    erased = {bare(p): c.name for c in (*request.others, *request.targets) for p in c.phrases}
    for target in request.targets:
        named = erased.get(bare(target.anchor)) if target.anchor.strip() else None
        if named is not None:
            whose = "its own phrase" if named == target.name else f"a phrase of {named!r}, which is erased too"
            raise UserInputError(f"the anchor of {target.name!r} is {target.anchor!r}, {whose}", "give the concept another anchor in the task")
