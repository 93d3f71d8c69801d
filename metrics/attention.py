"""Where a model looks at a concept's word: attribution maps of the cross-attention, and how dispersed they are.

KPOP (sec. 5.2, fig. 2) shows such maps, by head, of an erased and of a kept concept and finds the erased word's "more
dispersed"; it gives no number. The number here is the maps' entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from conceptbench.core.metric import Better
from conceptbench.core.schemas import Concept, Role, Sampler, Strict
from conceptbench.models.attention_maps import attribution_maps, phrase_in
from conceptbench.models.base import Base
from conceptbench.models.eraser import Load
from conceptbench.models.probe import Probe, Probed, ProbeRequest

ROWS = 16
"""Rows of a forward, both halves of guidance, where the base itself sets none."""
Place = Literal["all", "down", "mid", "up", "down+up", "mid+up"]


def normalised_entropy(maps: NDArray[Any]) -> NDArray[np.float64]:
    """``-sum p log p / log(h w)`` of each map, with p the map divided by its sum (Shannon; in [0, 1]).

    Args:
        maps: (..., h, w) not negative.

    Returns:
        (...): 1 for a map that is the same everywhere, 0 for one that is in one cell; NaN where a map is 0 everywhere, is not
        finite, or has one cell.
    """
    flat = np.asarray(maps, np.float64).reshape(*maps.shape[:-2], -1)
    total = flat.sum(-1)
    usable = np.isfinite(total) & (total > 0) & (flat.shape[-1] > 1)
    p = flat / np.where(usable, total, 1)[..., None]
    terms = p * np.log(np.where(p > 0, p, 1))
    entropy: NDArray[np.float64] = np.where(usable, -terms.sum(-1) / np.log(max(flat.shape[-1], 2)), np.nan)
    return np.clip(entropy, 0, 1)


def contrast(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Standard deviation over mean of each map (the coefficient of variation, ddof 0): 0 for a map that is the same everywhere.

    Args:
        maps: (..., h, w) not negative.

    Returns:
        (...), NaN where a map is 0 everywhere or is not finite.
    """
    wide = np.asarray(maps, np.float64)
    mean = wide.mean((-2, -1))
    usable = np.isfinite(mean) & (mean > 0)
    spread: NDArray[np.float64] = np.where(usable[..., None, None], wide, 0).std((-2, -1))
    return np.where(usable, spread / np.where(usable, mean, 1), np.nan)


def first_of_each(names: Sequence[str], most: int) -> list[int]:
    """Where the first so many distinct names stand first."""
    return [names.index(name) for name in list(dict.fromkeys(names))[:most]]


class AttentionEntropy(Probe):
    """How dispersed a model's attention to a concept's word is while it draws: 1 is everywhere alike.

    Images are drawn in the weights' own precision, each prompt with its first seed. The phrase is the longest of the
    concept's that stands in the prompt, without its article; a prompt without any is a failed unit.
    """

    name, summary = "attention_map", "entropy of the cross-attention's map of the concept's word, by head and layer averaged"
    reference = "Tang et al. 2023 (DAAM), sec. 3: the maps; KPOP, sec. 5.2, fig. 2: erased against kept, as pictures; the entropy is ours"
    failure_modes = (
        "normalised entropy is near 1 for any map that is an average over layers and steps: read the paired difference to the base, or `contrast`",
        "the map follows what is drawn: an erased word that still draws something (its anchor) looks at that, and its map may stay as sharp as before",
        "depends on the size of the object in the image: a large one has a high entropy without any loss of meaning",
        "head k of one layer has nothing to do with head k of another; a map by head is an average over layers as in DAAM",
        "attention is no proof of influence: values and the rest of the network may ignore a word that is looked at",
        "prompts that never say the concept's phrase (explicit content) have no map",
    )
    unit: ClassVar[str] = "entropy"
    parts: ClassVar[dict[str, str]] = {"heads": "entropy", "contrast": "ratio"}
    spread_kind: ClassVar[str] = "prompts"

    class Config(Strict):
        """Options.

        Attributes:
            prompts: how many of the concept's prompts at most.
            place: which blocks' cross-attention; DAAM's own code leaves the mid block out: ``down+up``.
            steps: of the sampler; None for the suite's.
            shown: how many prompts' maps and images are kept for the report.
        """

        prompts: int = Field(default=20, ge=1)
        place: Place = "all"
        steps: int | None = Field(default=None, ge=1, le=1000)
        shown: int = Field(default=2, ge=0)

    config: AttentionEntropy.Config

    @property
    def id(self) -> str:
        """``attention_map``."""
        return "attention_map"

    @property
    def arithmetic(self) -> str:
        """``entropy-all-20prompts``, with the steps where they are not the suite's: ``entropy-down+up-20prompts-50steps``."""
        return f"entropy-{self.config.place}-{self.config.prompts}prompts" + (f"-{self.config.steps}steps" if self.config.steps else "")

    def better(self, role: Role) -> Better:
        """Neither: it describes. An erased word may lose its map or get its anchor's."""
        return "neither"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always; where no prompt says the concept's phrase all units fail."""
        return True

    def work(self) -> int:
        """The number of prompts."""
        return self.config.prompts

    def load(self, sampler: Sampler) -> Load:
        """One image a prompt, with both halves of guidance."""
        return Load(plain=self.config.prompts * (self.config.steps or sampler.steps) * (1 if sampler.guidance == 1 else 2))

    def measure(self, base: Base, request: ProbeRequest, prepared: dict[str, NDArray[Any]]) -> Probed:
        """Draws the prompts and measures their maps.

        Returns:
            Units are prompts. ``arrays``, of the first prompts that say the phrase: ``mean`` (S, h, w) and ``heads``
            (S, heads, h, w) float32, ``images`` (S, H, W, 3) uint8, ``entropy`` (S,), ``index`` (S,) into the request's
            conditions; empty where no prompt does.

        Raises:
            UserInputError: the base has no cross-attention in ``place``, or its denoiser is compiled.
        """
        chosen = first_of_each(request.prompt_ids, self.config.prompts)
        phrases = {i: phrase_in(base, request.conditions[i].text, request.concept.phrases) for i in chosen}
        named = [i for i in chosen if phrases[i]]
        values = {part: np.full(len(chosen), np.nan) for part in ("", *self.parts)}
        kept: list[dict[str, NDArray[Any]]] = []
        request.progress(self.config.prompts - len(named))
        size = max(1, (base.exact_rows or ROWS) // 2)
        for start in range(0, len(named), size):
            batch = named[start : start + size]
            found, arrays = self._batch(base, request, batch, [phrases[i] or "" for i in batch], max(0, self.config.shown - start))
            for part, numbers in found.items():
                values[part][[chosen.index(i) for i in batch]] = numbers
            if arrays:
                kept.append(arrays)
            request.progress(len(batch))
        joined = {key: np.concatenate([arrays[key] for arrays in kept]) for key in kept[0]} if kept else {}
        return Probed(values, [request.prompt_ids[i] for i in chosen], joined)

    def _batch(self, base: Base, request: ProbeRequest, batch: list[int], phrases: list[str], shown: int) -> tuple[dict[str, Any], dict[str, Any]]:
        sampler = request.sampler.model_copy(update={"steps": self.config.steps or request.sampler.steps})
        maps = attribution_maps(base, [request.conditions[i] for i in batch], phrases, [request.seeds[i] for i in batch], sampler, self.config.place)
        entropy = normalised_entropy(maps.mean)
        found = {"": entropy, "heads": normalised_entropy(maps.heads).mean(-1), "contrast": contrast(maps.mean)}
        if not shown:
            return found, {}
        arrays: dict[str, NDArray[Any]] = {"mean": maps.mean, "heads": maps.heads, "entropy": entropy, "index": np.array(batch, np.int64)}
        return found, {"images": base.decode(maps.latents[:shown]), **{key: array[:shown] for key, array in arrays.items()}}
