"""What G-CiRs and SepME share: a concept's representation, its correlation with the original one, and the stop by a momentum statistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.loop import TrainingConfig
from conceptbench.erasers.shared.references import References
from conceptbench.models.base import Base
from conceptbench.models.conditions import Encoded
from conceptbench.models.eraser import Context

Kind = Literal["product", "cosine"]
Balance = Literal["loss", "product", "equal"]


class CorrelationConfig(TrainingConfig):
    """Options of erasers by correlation; ``batch`` counts images of each target.

    Attributes:
        correlation: ``product``: the mean of the elementwise product (eq. 2); ``cosine``: the alternative that failed in the paper (app. E).
        balance: eta, what makes several targets weigh the same: the size of the ``loss`` (eq. 3), the Euclidean norm of the elementwise
            ``product`` (released code), or ``equal`` for no weights.
        l1: lambda, the weight of the mean over layers of the increments' L1 norms.
        tau: training stops when the average loss is no larger; one number, or one by each target's name.
        momentum: alpha, how much of the average stays in a step; it begins with the first loss.
        stop: what is averaged: the weighted ``sum`` of the targets' losses, held against the smallest tau (eq. 4; alg. 1 and 2: one break for
            all), or ``each`` one's own (released code); then a target whose average is down is left out, and training goes on until all are.
        min_steps: steps before it may stop.
        check: ``before`` the step, so that the step that stops changes nothing (alg. 1), or ``after`` it (released code).
        images: of each target, from the base, whose noised latents are x_t.
        texts: in how many of its training templates each phrase of a concept is used; 1 is the bare phrase, as in the paper.
    """

    correlation: Kind = "product"
    balance: Balance = "loss"
    l1: float = Field(default=3e-5, ge=0)
    tau: float | dict[str, float] = 0.0
    momentum: float = Field(default=0.9, ge=0, lt=1)
    stop: Literal["sum", "each"] = "sum"
    min_steps: int = Field(default=0, ge=0)
    check: Literal["before", "after"] = "before"
    images: int = Field(default=100, ge=1)
    texts: int = Field(default=1, ge=1)

    def thresholds(self, targets: Sequence[Concept]) -> list[float]:
        """Tau of each target.

        Raises:
            UserInputError: it is given by name, but not for one of them.
        """
        if isinstance(self.tau, float):
            return [self.tau] * len(targets)
        missing = [c.name for c in targets if c.name not in self.tau]
        if missing:
            raise UserInputError(
                f"tau has no threshold for {', '.join(missing)}; it has: {', '.join(self.tau)}", "name every target, or give one number for all"
            )
        return [self.tau[c.name] for c in targets]


def correlations(original: Tensor, unlearned: Tensor, targets: int, kind: Kind = "product") -> tuple[Tensor, Tensor]:
    """L_cor of each target (Zhao et al. 2024, eq. 2) from representations Delta = eps(x_t, c_f, t) - eps(x_t, empty, t).

    Args:
        original: (k * B, C, h, w) Delta of the frozen model, target by target.
        unlearned: (k * B, C, h, w) Delta of the model that is trained.
        targets: k.
        kind: how they are correlated.

    Returns:
        (k,) losses, and (k,) Euclidean norms of the elementwise products.
    """
    product = (original * unlearned).view(targets, -1)
    if kind == "product":
        return product.mean(1), product.norm(dim=1)
    cosine = torch.nn.functional.cosine_similarity(original.flatten(1), unlearned.flatten(1), dim=1)
    return cosine.view(targets, -1).mean(1), product.norm(dim=1)


def balanced(losses: Tensor, norms: Tensor, balance: Balance) -> Tensor:
    """eta_i L_i with eta_i = |size of the first| / |size of the i-th| (eq. 3); (k,). Eta is a constant: else every gradient but the first's would vanish."""
    if balance == "equal":
        return losses
    sizes = (losses if balance == "loss" else norms).detach().abs()
    return sizes[0] / sizes.clamp_min(torch.finfo(sizes.dtype).tiny) * losses


def representation(base: Base, x_t: Tensor, t: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Delta = eps(x_t, c_f, t) - eps(x_t, empty, t) of the model as it is now, and eps(x_t, empty, t); one forward, (n, C, h, w) each."""
    encoded = Encoded.cat([base.encode(texts), base.encode_unconditional([""]).expand(len(texts))]).to(base.device, base.dtype)
    cond, uncond = base.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), encoded).chunk(2)
    return cond - uncond, uncond


def l1_per_layer(increments: Sequence[Tensor]) -> Tensor:
    """The L1 norms of M layers' increments, summed and divided by M (sec. 4.1)."""
    return torch.stack([d.abs().sum() for d in increments]).sum() / len(increments)


class Momentum:
    """Running averages of losses (eq. 4), and which of them have come down to their thresholds.

    Args:
        thresholds: k values of tau.
        config: alpha and the least number of steps.

    Attributes:
        state: ``average`` (k,) and ``done`` (k,), changed in place, for the training's checkpoints.
    """

    def __init__(self, thresholds: Sequence[float], config: CorrelationConfig) -> None:
        self.thresholds, self.config = torch.tensor(thresholds, dtype=torch.float64), config
        self.state = {"average": torch.full((len(thresholds),), torch.nan, dtype=torch.float64), "done": torch.zeros(len(thresholds))}

    def open(self) -> list[int]:
        """Which have not come down yet."""
        return [i for i, done in enumerate(self.state["done"].tolist()) if not done]

    def update(self, step: int, losses: Tensor) -> None:
        """Takes in a step's losses, one for each that is open; whatever came down stays so."""
        index, average = self.open(), self.state["average"]
        new = losses.detach().to("cpu", torch.float64)
        old = average[index]
        average[index] = torch.where(old.isnan(), new, self.config.momentum * old + (1 - self.config.momentum) * new)
        if step >= self.config.min_steps:
            self.state["done"][index] = (average[index] <= self.thresholds[index]).float()

    def parts(self, names: Sequence[str]) -> dict[str, float | Tensor]:
        """The averages, as they stand in the training curve."""
        averages = self.state["average"].tolist()
        return {"momentum" + (f" {name}" if len(names) > 1 else ""): average for name, average in zip(names, averages, strict=True)}


class Stop:
    """Which targets a training still erases: until the average of their sum is down, or each one's own.

    Args:
        targets: concepts.
        config: the stop, thresholds and weights.

    Attributes:
        state: of :class:`Momentum`.
    """

    def __init__(self, targets: Sequence[Concept], config: CorrelationConfig) -> None:
        thresholds, self._config = config.thresholds(targets), config
        self._each, self._names = config.stop == "each", [c.name for c in targets]
        self._momentum = Momentum(thresholds if self._each else [min(thresholds)], config)
        self.state = self._momentum.state

    def open(self) -> list[int]:
        """The targets that the next step is about; none when training is over."""
        found = self._momentum.open()
        return found if self._each or not found else list(range(len(self._names)))

    def take(self, step: int, losses: Tensor, norms: Tensor) -> tuple[Tensor, list[int]]:
        """Takes in a step's losses and norms (:func:`correlations`) of the targets that were open.

        Returns:
            sum_i eta_i L_i of the targets that the step is to move, and which they are. With the check ``before`` the step, those that
            just came down are none of them; if that leaves none, the sum is of all, and the caller takes the step back.
        """
        chosen, total = self.open(), balanced(losses, norms, self._config.balance).sum()
        self._momentum.update(step, losses if self._each else total[None])
        moving = chosen if self._config.check == "after" else self.open()
        if len(moving) in (0, len(chosen)):
            return total, moving
        left = [chosen.index(i) for i in moving]
        return balanced(losses[left], norms[left], self._config.balance).sum(), moving

    def parts(self) -> dict[str, float | Tensor]:
        """The averages, as they stand in the training curve."""
        return self._momentum.parts(self._names if self._each else ["all"])


@dataclass(frozen=True)
class ConceptImages:
    """Noised images of several concepts, with the prompts that say them.

    Attributes:
        references: of each concept.
    """

    references: list[References]

    @classmethod
    def of(cls, base: Base, ctx: Context, concepts: Sequence[Concept], config: CorrelationConfig) -> ConceptImages:
        """The base's images of each concept in the templates that it is erased in."""
        cut = [c.model_copy(update={"templates": c.templates[: config.texts]}) for c in concepts]
        return cls([References.of(base, ctx, c, config.images) for c in cut])

    def draw(self, base: Base, which: Sequence[int], batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, list[str]]:
        """A batch of each chosen concept, one below the other: x_t (k * B, C, h, w), t (k * B,) and prompts."""
        drawn = [self.references[i].draw(base, batch, generator) for i in which]
        return torch.cat([d.x_t for d in drawn]), torch.cat([d.t for d in drawn]), [text for d in drawn for text in d.texts]
