"""Judges that a suite trains on its base's own images: made once, kept in the store."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of
from conceptbench.core.judge import Judge
from conceptbench.core.manifests import load_prompts
from conceptbench.core.registry import source_hash
from conceptbench.core.schemas import PromptSource, Suite, Task
from conceptbench.core.trained_judges import TrainedJudgeSpec, training_seeds
from conceptbench.engine.generate import generate_alone
from conceptbench.engine.images import BASE, Images, ImageSpec
from conceptbench.engine.judging import Hearing, judge_key
from conceptbench.engine.measures import registered_judge
from conceptbench.engine.session import Session
from conceptbench.engine.state import load_state, save_state
from conceptbench.engine.store import Store
from conceptbench.judges import trained_head
from conceptbench.judges.trained_head import HeadJudge, TrainedHead, check_trunk, train_head
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition


class TrainedJudges:
    """Makes a suite's own judges, or reads them from the store.

    Args:
        base: whose images they learn.
        suite: it describes them.
        store: of images, answers and layers.
        session: reporter and journal.
        collect: make nothing.
    """

    def __init__(self, base: Base, suite: Suite, store: Store, session: Session, *, collect: bool = False) -> None:
        self.base, self.suite, self.store, self.session, self.collect = base, suite, store, session, collect
        self._registered = functools.cache(registered_judge)  # a trunk that the suite also asks directly is one network

    def judge(self, name: str) -> Judge:
        """A judge by name: one of the suite's own, else a registered one. Another process that trains the same one is waited for.

        Raises:
            UserInputError: it is not made, and nothing is to be made.
        """
        spec = self.suite.judges.get(name)
        if spec is None:
            found: Judge = self._registered(name)
            return found
        trunk = self._registered(spec.trunk)
        check_trunk(name, trunk)
        specs = {label: self._specs(name, label, spec) for label in spec.classes}
        key = self._key(spec, trunk, specs)
        path = self.store.root / "judges" / f"{key}.safetensors"
        layer = _read(path)
        if layer is None:
            if self.collect:
                raise UserInputError(f"judge {name!r} of suite {self.suite.name!r} is not trained yet", f"conceptbench run {self.suite.name} trains it")
            with self.store.lock(key, self.session.stop.check):
                layer = _read(path) or self._make(path, name, trunk, specs)
        return HeadJudge(name, trunk, spec.head, layer, spec.note)

    def _make(self, path: Path, name: str, trunk: Judge, specs: dict[str, list[ImageSpec]]) -> TrainedHead:
        spec = self.suite.judges[name]
        with self.session.journal.stage("judge", f"training of {name}"):
            layer = train_head({label: self._features(name, spec.trunk, trunk, own) for label, own in specs.items()}, spec)
            _write(path, layer)
        return layer

    def _specs(self, name: str, label: str, spec: TrainedJudgeSpec) -> list[ImageSpec]:
        """The training images of a class."""
        condition, sampler = Condition(spec.classes[label]), self.suite.sampler
        seeds = training_seeds(spec, name, label, () if spec.seeds_of is None else self._evaluation_seeds(spec.seeds_of))
        return [ImageSpec("judge", label, "retained", f"{name}-{label}-{i}", i, condition, seed, sampler) for i, seed in enumerate(seeds)]

    def _evaluation_seeds(self, prompts: str) -> list[int]:
        """Of all held-out images that the suite can ask of a prompt set, whichever of its tasks are carried out."""
        concepts = tuple(dict.fromkeys(r.concept for r in load_prompts(prompts) if r.split == "heldout"))
        if not concepts:
            return []
        return [s.seed for s in Images(self.suite, Task(id="judge", targets=concepts, prompts=PromptSource(set=prompts)))]

    def _key(self, spec: TrainedJudgeSpec, trunk: Judge, specs: dict[str, list[ImageSpec]]) -> str:
        images = {label: [s.key(self.base.info, BASE) for s in own] for label, own in specs.items()}
        return key_of({"what": "judge", "spec": spec, "trunk": judge_key(trunk.card), "images": images, "source": source_hash([trained_head])})

    def _features(self, name: str, trunk_name: str, trunk: Judge, specs: list[ImageSpec]) -> NDArray[np.float32]:
        """(n, D) of a class's images; an image that was drawn twice counts twice."""
        generate_alone(self.base, specs, BASE, self.store, self.session, what=f"training images of judge {name}")
        hearing = Hearing({trunk_name: trunk}, self.base.info, BASE, self.store)
        keys = [s.key(self.base.info, BASE) for s in specs]
        new = {k: s for k, s in zip(keys, specs, strict=True) if k not in hearing.said[trunk_name]}
        for start in range(0, len(new), self.session.batch):
            part = list(new)[start : start + self.session.batch]
            hearing.look(part, [new[k] for k in part], self.store.read_images(part))
        return np.stack([hearing.said[trunk_name][k]["features"] for k in keys])


def _write(path: Path, layer: TrainedHead) -> None:
    arrays = {"weights": layer.weights, "bias": layer.bias, "confusion": layer.confusion}
    save_state(path, {n: torch.from_numpy(a) for n, a in arrays.items()}, {"classes": list(layer.classes), "epoch": layer.epoch})


def _read(path: Path) -> TrainedHead | None:
    found = load_state(path)
    if found is None:
        return None
    tensors, values = found
    weights, bias, confusion = (tensors[n].numpy() for n in ("weights", "bias", "confusion"))
    return TrainedHead(tuple(values["classes"]), weights, bias, confusion, int(values["epoch"]))
