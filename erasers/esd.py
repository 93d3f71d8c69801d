"""Erased Stable Diffusion (Gandikota et al. 2023): train the model to guide itself away from the concept."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from conceptbench.erasers.shared.latents import Trajectories, TrajectoryConfig
from conceptbench.erasers.shared.loop import train, trainable
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of


class ESDConfig(TrajectoryConfig):
    """Options; ``latents: current`` is the paper's, the released diffusers code takes x_t from the frozen base.

    Attributes:
        negative_guidance: eta, how far to guide away.
    """

    negative_guidance: float = 1.0


def esd_target(cond: Tensor, uncond: Tensor, eta: float) -> Tensor:
    """eps*(x_t, empty) - eta (eps*(x_t, c) - eps*(x_t, empty)): Gandikota et al. 2023, eq. 7. All (B, C, h, w)."""
    return uncond - eta * (cond - uncond)


class ESD(Eraser[ESDConfig]):
    """|| eps(x_t, c) - [eps*(x_t, empty) - eta (eps*(x_t, c) - eps*(x_t, empty))] ||^2, the starred model frozen."""

    name = "esd"
    summary = "trains the model's prediction for the concept to its negative guidance"
    reference = "Gandikota et al. 2023, arXiv:2303.07345"
    Config: ClassVar[type[EraserConfig]] = ESDConfig
    variants = MappingProxyType(
        {
            "x": {"parameters": "xattn"},
            "u": {"parameters": "noxattn"},
            "strict": {"parameters": "kv"},
            "full": {"parameters": "full"},
        }
    )
    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: ESDConfig, targets: int) -> Load:
        """The training steps, and the points with the teacher's predictions there."""
        return Load(config.sampled_rows(targets), config.steps * config.batch, config.batch, config.parameters)

    def erase(self, base: Base, request: EraseRequest, config: ESDConfig, ctx: Context) -> Erasure:
        """Trains the chosen parameters; several targets take turns at random."""
        texts = [t for concept in request.targets for t in concept.texts(config.texts)]
        points = Trajectories(base, texts, config, config.trajectories(request.sampler.size), ctx)
        with trainable(base, config.parameters) as parameters:
            originals = values_of(parameters)

            def loss(_step: int) -> Tensor:
                b = points.draw(originals)
                predicted = base.predict(b.x_t, b.t, base.encode(b.texts).to(base.device, base.dtype))
                return ((predicted - esd_target(b.cond, b.uncond, config.negative_guidance)) ** 2).mean()

            return Erasure.additive(originals, train(parameters, loss, config, ctx))
