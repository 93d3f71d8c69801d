"""Contexts and requests for eraser tests, without the engine, and what holds for every trained eraser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from conceptbench.core.schemas import Concept, Sampler
from conceptbench.models.eraser import EraseRequest, SavedTraining
from conceptbench.models.erasure import Erasure
from conceptbench.models.groups import select

TARGET = Concept(name="ab", kind="object", phrases=("ab",), templates=("{}", "a {}"), anchor="cd")
KEPT = Concept(name="ef", kind="object", phrases=("ef",), templates=("{}",))
SAMPLER = Sampler(steps=4, guidance=3.0)


class PlainContext:
    def __init__(self, seed: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.losses: list[float] = []

    def images(self, concept, n, folder=None):
        raise NotImplementedError

    def once(self, name, make):
        return make()

    def shared(self, name, key, make):
        return make(torch.Generator().manual_seed(0))

    def tick(self):
        pass

    def saved(self):
        return None

    def checkpoint(self, step, tensors):
        pass

    def progress(self, step, total, loss, *, prompt=None, **values):
        self.losses.append(loss)


class Images(PlainContext):
    """Made-up images of each concept; keeps what was asked for, what was made and what was reported."""

    side = 16

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.asked: list[tuple[Concept, int, str | None]] = []
        self.made: dict[str, dict[str, torch.Tensor]] = {}
        self.keys: list[dict] = []
        self.answers: dict[str, torch.Tensor] = {}
        self.curve: list[dict[str, float]] = []
        self.totals: list[int] = []

    def images(self, concept, n, folder=None):
        self.asked.append((concept, n, folder))
        return np.random.default_rng(sum(map(ord, concept.name))).integers(0, 256, (n, self.side, self.side, 3), dtype=np.uint8)

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def shared(self, name, key, make):
        self.keys.append(dict(key))
        self.answers = super().shared(name, key, make)
        return self.answers

    def progress(self, step, total, loss, *, prompt=None, **values):
        super().progress(step, total, loss)
        self.totals.append(total)
        self.curve.append({"loss": loss, **values})


class Stopped(Exception):
    pass


class Interrupted(Images):
    """Ends with an error after some steps, keeping what a checkpoint keeps."""

    def __init__(self, after: int, seed: int = 1) -> None:
        super().__init__(seed)
        self.left, self.seed = after, seed

    def checkpoint(self, step, tensors):
        if step == self.left:
            self.kept = SavedTraining(step, {n: t.clone() for n, t in tensors().items()}), self.generator.get_state()
            raise Stopped


class Resumed(Images):
    """Begins with the same seed and goes on from there."""

    def __init__(self, interrupted: Interrupted) -> None:
        super().__init__(interrupted.seed)
        self.kept, self.made = interrupted.kept, interrupted.made

    def saved(self):
        self.generator.set_state(self.kept[1])
        return self.kept[0]


def stopped_and_resumed(erase: Callable[[PlainContext], Erasure], after: int, seed: int = 1) -> tuple[Erasure, Resumed]:
    """The erasure of a training that was stopped after some steps and went on, and the context that it went on in."""
    interrupted = Interrupted(after, seed)
    with pytest.raises(Stopped):
        erase(interrupted)
    resumed = Resumed(interrupted)
    return erase(resumed), resumed


def assert_seeded(erase: Callable[[PlainContext], Erasure]) -> tuple[Erasure, Images]:
    """The same seed, the same bytes; another seed, others. The first erasure and its context."""
    context = Images(1)
    erasure = erase(context)
    assert erasure.weights_hash() == erase(Images(1)).weights_hash() != erase(Images(2)).weights_hash()
    return erasure, context


def assert_falls(losses: list[float], n: int) -> None:
    assert sum(losses[-n:]) < sum(losses[:n])


def assert_changes_only(base, erase: Callable[[], Erasure], group: str) -> None:
    """Parameters of the group change, more than half of them; the base stays as it was."""
    before = snapshot(base)
    changed = set(erase().changes[0].tensors)
    assert_base_untouched(base, before)
    parameters = set(select(base.network, group))
    assert changed <= parameters and len(changed) > 0.5 * len(parameters)


def request(*targets: Concept, retained=(KEPT,)) -> EraseRequest:
    return EraseRequest(targets=targets or (TARGET,), retained=tuple(retained), sampler=SAMPLER)


def snapshot(base) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in base.network.named_parameters()}


def assert_base_untouched(base, before) -> None:
    for name, parameter in base.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert not parameter.requires_grad and parameter.grad is None
