"""Training anew without the targets: what every way of forgetting a class is measured against."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.classes.datasets import load_images
from conceptbench.classes.recipes import Recipe, recipe_of
from conceptbench.classes.training.generators import seeded_pipeline, training_loss
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.erasers.shared.loop import Terms, TrainingConfig, train, trainable
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of


class RetrainConfig(EraserConfig):
    """Options.

    Attributes:
        model: the recipe's: the family of the base.
        data: the data set that the base was trained on.
        steps: of the optimiser, where it is not the recipe's number for the images that are left.
    """

    model: Literal["cvae", "ddpm"] = "cvae"
    data: str = "digits"
    steps: int | None = Field(default=None, ge=1)

    @property
    def recipe(self) -> Recipe:
        """How the base was trained."""
        return recipe_of(self.model, self.data)


class Retrain(Eraser[RetrainConfig]):
    """New weights, trained as the base was on the images of all classes but the targets ("9 classes" in Selective Amnesia's table 1)."""

    name = "retrain"
    summary = "trains the network anew without the targets' images; what forgetting is measured against"
    reference = "Heng and Soh 2023, arXiv:2305.10120, table 1"
    Config: ClassVar[type[EraserConfig]] = RetrainConfig
    variants = MappingProxyType[str, MappingProxyType[str, Any]]({"": MappingProxyType({})})
    supports = Supports(families=("cvae", "ddpm"))

    @classmethod
    def load(cls, config: RetrainConfig, targets: int) -> Load:  # noqa: ARG003 - it is the same for any number
        """The recipe's steps."""
        recipe = config.recipe
        return Load(0, (config.steps or recipe.steps or 1000) * recipe.batch, recipe.batch, "full")

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: RetrainConfig) -> None:
        """Refuses another family than the recipe's, other classes than the data set's, and targets that are no class."""
        if base.info.family != config.model:
            raise UserInputError(f"{base.info.id} is a {base.info.family}, not a {config.model}", f"set model={base.info.family}")
        for target in request.targets:
            for phrase in target.phrases:
                if phrase not in base.classes:
                    raise unknown_name(f"class of {base.info.id} for target {target.name!r}", phrase, base.classes)

    def erase(self, base: Base, request: EraseRequest, config: RetrainConfig, ctx: Context) -> Erasure:
        """Trains from random weights; the average over the steps is kept where the recipe has one."""
        recipe = config.recipe
        data = load_images(config.data, recipe.split)
        if data.classes != base.classes:
            raise UserInputError(
                f"{config.data} has other classes than {base.info.id}", f"it has {', '.join(base.classes)}: set data= to what it was trained on"
            )
        data = data.without([p for t in request.targets for p in t.phrases])
        own = TrainingConfig(parameters="full", steps=config.steps or recipe.steps_for(len(data)), batch=recipe.batch, lr=recipe.lr, clip=recipe.clip)
        seed = int(torch.randint(2**40, (1,), generator=ctx.generator))
        fresh = seeded_pipeline(config.model, recipe, data.classes, seed).components[base.component]
        with trainable(base, "full") as parameters:
            originals = values_of(parameters)
            for name, value in fresh.named_parameters():
                parameters[name].data = value.data.to(parameters[name])
            average, objective = values_of(parameters), training_loss(base, data, recipe)

            def loss(_step: int) -> Tensor:
                return objective(torch.randint(len(data), (recipe.batch,), generator=ctx.generator), ctx.generator)

            @torch.no_grad()
            def after(step: int, _terms: Terms) -> bool:
                decay = min(recipe.ema, (step + 1) / (step + 10))  # a short warm-up, as in the recipes' own training
                for name, value in average.items():
                    value.mul_(decay).add_(parameters[name], alpha=1 - decay)
                return False

            train(parameters, loss, own, ctx, state=average, after=after)
            return Erasure.additive(originals, average, base.component)
