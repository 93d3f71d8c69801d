"""Asks each judge once about each image, whatever the number of metrics that want to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.files import key_of
from conceptbench.core.metric import Judge, JudgeCard
from conceptbench.engine.plan import ImageSpec
from conceptbench.engine.store import Store
from conceptbench.models.base import BaseInfo

BATCH = 64


def judge_key(card: JudgeCard) -> str:
    """What identifies a judge's answers: its weights, labels and preprocessing."""
    return key_of({"id": card.id, "sha256": card.sha256, "labels": dict(card.labels), "preprocessing": card.preprocessing})


def judged(judge: Judge, specs: Sequence[ImageSpec], info: BaseInfo, model: str, store: Store) -> tuple[dict[str, Mapping[str, NDArray[Any]]], int]:
    """What the judge says of the images of a model: from the store, or asked now and stored.

    Returns:
        image key -> named arrays of that image, and how many images the judge looked at now.
    """
    who = judge_key(judge.card)
    by_key = {s.key(info, model): s for s in specs}
    known = store.read_judged(who, model)
    missing = [k for k in by_key if k not in known]
    for start in range(0, len(missing), BATCH):
        keys = missing[start : start + BATCH]
        images = np.stack([store.read_image(k) for k in keys])
        outputs = judge(images, [by_key[k].condition.text for k in keys])
        store.write_judged(who, model, keys, outputs)
        known.update({k: {n: a[i] for n, a in outputs.items()} for i, k in enumerate(keys)})
    return known, len(missing)
