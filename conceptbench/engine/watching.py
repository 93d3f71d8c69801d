"""Looks at a model while an eraser trains it (KPOP, sec. 5.4 and Fig. 4): what its prompts bring out by then."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.schemas import Concept, Sampler, Suite, Watch
from conceptbench.core.seeds import training_seed
from conceptbench.engine.judging import judge_key
from conceptbench.engine.measures import registered_judge
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.sampling import denoise


def watcher_of(suite: Suite, target: Concept) -> Watcher | None:
    """The watcher that a suite asks for, or None.

    Raises:
        UserInputError: its judge is no image-text judge.
    """
    if suite.watch is None:
        return None
    judge = _judge(suite.watch.judge)
    if judge.card.role != "image-text":
        raise UserInputError(f"watch of suite {suite.name!r} needs a judge of role 'image-text', and {suite.watch.judge!r} is a {judge.card.role}")
    return Watcher(suite.watch, judge, target, suite.sampler)


def watch_key(suite: Suite) -> dict[str, object]:
    """What an erasure's key knows of its watching, because the curve is part of the erasure; nothing where nobody watches.

    Without the judge's weights its name has to do: so that there is a plan to look at, while a run refuses to begin.
    """
    if suite.watch is None:
        return {}
    try:
        return {"watch": suite.watch, "watch_judge": judge_key(_judge(suite.watch.judge).card)}
    except MissingWeightsError:
        return {"watch": suite.watch}


@functools.cache
def _judge(name: str) -> Any:
    return registered_judge(name)


class Watcher:
    """Draws images of the erased and of the neutral prompt from the model in training, and asks an image-text judge about them.

    ``c_e`` is the first target's usual phrase, ``c_n`` its anchor (the empty prompt where it has none), ``x_e`` and ``x_n`` are
    images drawn for them, always from the same noise. The values are the cosines (c_e, x_e), (c_e, x_n) and (c_n, x_n), and for
    an eraser that learns a prompt the cosine of its mean vector with the mean vector of each text.

    On CUDA the peak memory of a watched erasure includes what the watcher's sampling and its judge need.

    Args:
        watch: what the suite asks for.
        judge: the image-text judge.
        target: the first target.
        sampler: of the suite.
    """

    def __init__(self, watch: Watch, judge: Any, target: Concept, sampler: Sampler) -> None:
        self._watch, self._judge, self._sampler = watch, judge, sampler
        self._texts = (target.phrases[0], target.anchor)
        self._seeds = [training_seed("watch", target.name, i) for i in range(watch.images)]

    def is_due(self, step: int, total: int) -> bool:
        """Whether this step (from 0) of so many is looked at."""
        return step % self._watch.every == 0 or step + 1 == total

    def look(self, base: Base, prompt: Tensor | None = None) -> dict[str, float]:
        """The values at this step.

        Args:
            base: with the weights of this step.
            prompt: (k, width) the prompt that is being learned, if there is one.
        """
        erased, neutral = self._images(base)
        c_e, c_n = self._judge.encode_texts(list(self._texts))
        found = {
            "cos(c_e, x_e)": float((erased @ c_e).mean()),
            "cos(c_e, x_n)": float((neutral @ c_e).mean()),
            "cos(c_n, x_n)": float((neutral @ c_n).mean()),
        }
        if prompt is not None:
            found |= {f"cos(prompt, {t!r})": v for t, v in zip(self._watch.texts, alignment(base, prompt, self._watch.texts), strict=True)}
        return found

    def _images(self, base: Base) -> tuple[Any, Any]:
        """Embeddings (n, D) of the images of both prompts."""
        n = self._watch.images
        conditions = [Condition(t) for t in self._texts for _ in range(n)]
        latents = denoise(base, conditions, self._seeds * 2, self._sampler)
        embeddings = self._judge(base.decode(latents))["embedding"]
        return embeddings[:n], embeddings[n:]


@torch.no_grad()
def alignment(base: Base, prompt: Tensor, texts: Sequence[str]) -> list[float]:
    """The cosine of a learned prompt with texts in the space of the text encoder's states.

    Both sides are means over vectors: of the prompt's k, and of a text's own tokens without start, end and padding.

    Args:
        base: for its encoder.
        prompt: (k, width).
        texts: T texts.

    Returns:
        T cosines.
    """
    found = []
    for text in texts:
        positions = base.token_positions(text, text)
        states = base.encode([text]).hidden[0]
        mean = states[positions].mean(0) if positions else states.mean(0)
        found.append(float(F.cosine_similarity(prompt.detach().float().mean(0).cpu(), mean.float().cpu(), dim=0)))
    return found
