"""A context and requests for eraser tests, without the engine."""

from __future__ import annotations

import torch

from conceptbench.core.schemas import Concept, Sampler
from conceptbench.models.eraser import EraseRequest

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


def request(*targets: Concept, retained=(KEPT,)) -> EraseRequest:
    return EraseRequest(targets=targets or (TARGET,), retained=tuple(retained), sampler=SAMPLER)


def snapshot(base) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in base.unet.named_parameters()}


def assert_base_untouched(base, before) -> None:
    for name, parameter in base.unet.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert not parameter.requires_grad and parameter.grad is None
