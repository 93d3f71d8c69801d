"""G-CiRs, the generation of concept-irrelevant representations (Zhao et al. 2024, sec. 3.1): SepME's loss on all of cross-attention."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from conceptbench.erasers.shared.correlation import ConceptImages, CorrelationConfig, Stop, correlations, l1_per_layer, representation
from conceptbench.erasers.shared.loop import Terms, train, trainable
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of


class GCiRsConfig(CorrelationConfig):
    """Options: those of all erasers by correlation."""


class GCiRs(Eraser[GCiRsConfig]):
    """sum_i eta_i mean(Delta_i(theta*) Delta_i(theta)) + lambda |theta - theta*|_1 / M, until its running average is at tau.

    The loss has no lower bound: the representations would become opposite instead of irrelevant, so the stop is the method.
    """

    name = "gcirs"
    summary = "trains the concept's representation until it no longer correlates with the original one"
    reference = "Zhao et al. 2024, arXiv:2402.05947, sec. 3.1"
    Config: ClassVar[type[EraserConfig]] = GCiRsConfig
    variants = MappingProxyType({"xattn": {"parameters": "xattn"}, "kv": {"parameters": "kv"}})
    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: GCiRsConfig, targets: int) -> Load:
        """At most so many steps of two rows an image, with the concept and with the empty prompt; the frozen model as many."""
        rows = 2 * config.steps * config.batch * targets
        return Load(rows, rows, 2 * config.batch * targets, config.parameters, images=targets * config.images)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: GCiRsConfig) -> None:  # noqa: ARG003
        """Every target has its threshold."""
        config.thresholds(request.targets)

    def erase(self, base: Base, request: EraseRequest, config: GCiRsConfig, ctx: Context) -> Erasure:
        """Trains one change for all targets."""
        stop = Stop(request.targets, config)
        images = ConceptImages.of(base, ctx, request.targets, config)
        with trainable(base, config.parameters) as parameters:
            originals, kept = values_of(parameters), dict[str, Tensor]()

            def loss(step: int) -> Terms:
                chosen = stop.open()
                x_t, t, texts = images.draw(base, chosen, config.batch, ctx.generator)
                with torch.no_grad(), base.swapped(originals):
                    original, _ = representation(base, x_t, t, texts)
                unlearned, _ = representation(base, x_t, t, texts)
                losses, norms = correlations(original, unlearned, len(chosen), config.correlation)
                total, moving = stop.take(step, losses, norms)
                if not moving:
                    kept.update(values_of(parameters))  # the step that stops is taken back
                penalty = l1_per_layer([p - originals[n] for n, p in parameters.items()])
                return Terms(total + config.l1 * penalty, {"correlation": losses.mean(), **stop.parts()})

            def after(_step: int, _terms: Terms) -> bool:
                for name, value in kept.items():
                    parameters[name].data.copy_(value)
                return not stop.open()

            return Erasure.additive(originals, train(parameters, loss, config, ctx, state=stop.state, after=after))
