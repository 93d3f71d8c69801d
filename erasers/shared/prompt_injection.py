"""A learned prompt beside the text in cross-attention (KPOP, Bui et al. 2024, sec. 4.3): while it is trained, and to bring targets back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.models.base import Base
from conceptbench.models.runtime import Runtime

Mode = Literal["concat", "add"]
Place = Literal["mid", "mid+up", "all"]
SHARED, PREFIX = "*", "prompt/"


@contextmanager
def injected(base: Base, prompt: Tensor, mode: Mode, place: str) -> Iterator[None]:
    """Inside, cross-attention sees a prompt beside the text: K = W_k [c; p] and V = W_v [c; p], or c + p (KPOP, Tab. 1).

    Args:
        base: its denoiser gets hooks, which are gone on leaving.
        prompt: (..., S, k, D), S = 1: of keys and values, S = 2: of keys, of values; before that nothing for all rows, or (B,) of each.
        mode: ``concat``; or ``add``, where k is the text's length.
        place: as in :meth:`Base.attention_sites`.
    """

    def hook(side: Tensor) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        def change(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            states = args[0]
            own = side.to(states).expand(len(states), -1, -1)
            return (torch.cat([states, own], 1) if mode == "concat" else states + own,)

        return change

    handles = []
    try:
        for site in base.attention_sites(place):
            attention: Any = site.module
            for layer, side in ((attention.to_k, prompt[..., 0, :, :]), (attention.to_v, prompt[..., -1, :, :])):
                handles.append(layer.register_forward_pre_hook(hook(side)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class LearnedPrompt(Runtime):
    """Brings erased targets back: their hidden prompts are injected while sampling, in both halves of guidance as in the authors' code.

    Config:
        mode, place: as in training.
        targets: concepts that were erased.
        seed: of random prompts.
        concepts: which targets to bring back; prompts of several are put one behind the other, or summed in mode ``add``.
        key: whose prompt: empty for each one's own, ``random`` for Gaussian ones of the same norm, or the name of another target.

    Artefacts:
        ``prompt/NAME`` (S, k, D) for a target, or ``prompt/*`` for all of them.
    """

    name = "learned-prompt"

    @contextmanager
    def attached(self, base: Base) -> Iterator[None]:
        """Hooks on the denoiser.

        Raises:
            UserInputError: the denoiser is compiled, or there is no such concept or key.
        """
        if base._compiled is not None:
            raise UserInputError("a learned prompt is injected by hooks, which a compiled denoiser does not call", "sample without compiled")
        with injected(base, self.prompt().to(base.device), self.config["mode"], self.config["place"]):
            yield

    def prompt(self) -> Tensor:
        """What is injected: (S, k, D)."""
        own = {n.removeprefix(PREFIX): t for n, t in self.artefacts.items() if n.startswith(PREFIX)}
        key = self.config.get("key", "")
        for concept in self.config["concepts"]:
            if concept not in self.config["targets"]:
                raise unknown_name("target of this erasure", concept, self.config["targets"])
        if key not in ("", "random"):
            if SHARED in own:
                raise UserInputError(f"{key!r} has no prompt of its own: all targets share one", "erase with the option prompts=each")
            if key not in own:
                raise unknown_name("learned prompt", key, own)
            return own[key]
        names = list(dict.fromkeys(SHARED if SHARED in own else c for c in self.config["concepts"]))
        chosen = [self._random_like(own, n) if key else own[n] for n in names]
        return torch.cat(chosen, -2) if self.config["mode"] == "concat" else torch.stack(chosen).sum(0)

    def _random_like(self, own: dict[str, Tensor], name: str) -> Tensor:
        """Gaussian, with the norm of a prompt's keys and that of its values; always the same for the same prompt's name."""
        generator = torch.Generator().manual_seed(self.config["seed"] + sorted(own).index(name))
        drawn = torch.randn(own[name].shape, generator=generator)
        of_own, of_drawn = (x.cpu().norm(dim=(-2, -1), keepdim=True) for x in (own[name], drawn))
        return drawn * (of_own / of_drawn)
