"""KPOP (Bui et al. 2024): what the target means moves from the weights into a learned prompt, which then stays hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.latents import NoisyBatch, Trajectories, TrajectoryConfig, draw_seeds
from conceptbench.erasers.shared.loop import Player, Terms, train, trainable
from conceptbench.erasers.shared.prompt_injection import PREFIX, SHARED, LearnedPrompt, Mode, Place, injected
from conceptbench.erasers.shared.spans import check_anchors
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, RuntimeSpec, values_of


class KPOPConfig(TrajectoryConfig):
    """Options.

    Attributes:
        mode: the prompt p is put behind the text's states c (``concat``) or added to them (``add``).
        place: the cross-attention layers that see it.
        size: k, its length in texts (77 tokens each on Stable Diffusion); ``add`` has always one.
        separate: a prompt for keys and one for values (code of the authors' later papers) instead of one for both (paper).
        prompts: one ``shared`` by all targets (paper) or one for ``each`` (a comment in the authors' code), which then are keys of
            their own for bringing targets back.
        init: standard deviation of p at the beginning, in units of that of the targets' states; the paper does not say.
        prompt_lr: eta_p, the learning rate of p. All else of its optimiser is that of the weights': ``weight_decay`` and ``clip``, too.
        preserve: lambda, the weight of the base's prediction when the prompt is there; 0 erases without regard to it.
        neutral: c_n, what a target becomes: a text, or ``anchor`` for the target's own. All blank texts are the empty prompt.
        star: keep the retained concepts too ("Ours*"). The paper has no equation for it; here
            |eps'(c_r) - eps*(c_r)|^2 on trajectories of the retained concepts is added.
        star_weight: its weight.
        start_guidance: guidance of the trajectories that x_t lies on; the paper does not say, the authors' run is named ``sg_3``.
        bank: trajectories in the bank, and as many of retained concepts with ``star``.
    """

    mode: Mode = "concat"
    place: Place = "mid"
    size: int = Field(default=10, ge=1)
    separate: bool = False
    prompts: Literal["shared", "each"] = "shared"
    init: float = Field(default=1.0, ge=0)
    prompt_lr: float = Field(default=1e-5, gt=0)
    preserve: float = Field(default=0.1, ge=0)
    neutral: str = " "
    star: bool = False
    star_weight: float = Field(default=1.0, gt=0)


class KPOP(Eraser[KPOPConfig]):
    """Turns of one gradient step each: transfer to the prompt (eq. 5 and 6), then removal from the weights (eq. 7).

    p:      |eps'(c_e, p) - eps*(c_e)|^2
    theta': |eps'(c_e) - eps*(c_n)|^2 + lambda |eps'(c_e, p) - eps*(c_e)|^2, the starred model frozen.

    Both steps of a turn see the same x_t. Squared norms are means over all elements.
    """

    name = "kpop"
    summary = "moves the target into a learned prompt that stays hidden, and takes it from the weights"
    reference = "Bui et al. 2024, arXiv:2403.12326"
    Config: ClassVar[type[EraserConfig]] = KPOPConfig
    variants = MappingProxyType({"": {}, "add": {"mode": "add", "place": "all", "init": 0.01}, "star": {"star": True}})
    supports = Supports(recover=True)

    @classmethod
    def load(cls, config: KPOPConfig, targets: int) -> Load:
        """Three trained rows a sample (p, and theta' without and with p), and the frozen base's; a fourth to keep the others."""
        rows, kinds = config.steps * config.batch, 2 if config.star else 1
        neutral = rows if config.neutral.strip() else 0
        return Load(kinds * config.sampled_rows(targets) + neutral, (2 + kinds) * rows, config.batch, config.parameters)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: KPOPConfig) -> None:
        """Refuses places that the denoiser has not, ``star`` with nothing to keep, and anchors that are not there."""
        if not base.attention_sites(config.place):
            raise UserInputError(f"place is {config.place!r}, but this base has no cross-attention there", "allowed: mid, mid+up, all; try all")
        if config.star and not request.retained:
            raise UserInputError("star keeps the retained concepts, but the task retains none", "name some in retained, or leave out star")
        missing = [c.name for c in request.targets if not c.anchor]
        if config.neutral == "anchor" and missing:
            raise UserInputError(f"neutral is 'anchor', but {', '.join(missing)} has none", "give anchors in the task, or neutral: ' '")
        if config.neutral == "anchor":
            check_anchors(request)

    @classmethod
    def check_restoring(cls, config: KPOPConfig, restored: Sequence[str], key: str) -> None:  # noqa: ARG003 - a shared prompt brings all back
        """Refuses a target's name as the key where no target has a prompt of its own."""
        if key not in ("", "random") and config.prompts == "shared":
            raise UserInputError(f"{key!r} has no prompt of its own: all targets share one", "erase with the option prompts=each")

    def erase(self, base: Base, request: EraseRequest, config: KPOPConfig, ctx: Context) -> Erasure:
        """Trains the prompt and the chosen parameters in turns; several targets take turns at random."""
        self.check(base, request, config)
        seed = draw_seeds(1, ctx.generator)[0]  # of random prompts for comparison
        prompts = _first_prompts(base, request.targets, config, ctx)
        with trainable(base, config.parameters) as parameters:
            originals = values_of(parameters)
            game = _Game(base, request, config, ctx, prompts, originals)
            turn = [Player(prompts, game.transfer, config.prompt_lr)]
            erasure = Erasure.additive(originals, train(parameters, game.removal, config, ctx, before=turn))
        erasure.hidden = {n: p.detach().float().cpu() for n, p in prompts.items()}
        recovery = {"mode": config.mode, "place": config.place, "targets": [c.name for c in request.targets], "seed": seed}
        erasure.recovery = RuntimeSpec(LearnedPrompt.name, recovery)
        return erasure


class _Game:
    """The two players' losses, on the same batch in a turn."""

    def __init__(
        self, base: Base, request: EraseRequest, config: KPOPConfig, ctx: Context, prompts: Mapping[str, Tensor], originals: dict[str, Tensor]
    ) -> None:
        self.base, self.config, self.prompts, self.originals = base, config, prompts, originals
        self.owners = {text: concept for concept in request.targets for text in concept.texts(config.texts)}
        kept = [text for concept in request.retained for text in concept.texts(config.texts)] if config.star else []
        kinds = [list(self.owners), kept] if kept else [list(self.owners)]
        sampler, names = config.trajectories(request.sampler.size), ("trajectories", "trajectories-retained")
        self.points = [Trajectories(base, texts, config, sampler, ctx, name) for texts, name in zip(kinds, names, strict=False)]
        self.batch: NoisyBatch | None = None  # of this turn

    def transfer(self, _step: int) -> Tensor:
        """Of the prompt (eq. 5)."""
        self.batch = self.points[0].draw(self.originals)
        return self._recovered(self.batch, self._prompts_of(self.batch))

    def removal(self, _step: int) -> Terms:
        """Of the weights (eq. 7), and what the starred variant adds."""
        b = self.batch
        assert b is not None  # the prompt moves first
        parts = {"erased": mse_loss(self._predict(b, b.texts), self._neutral(b)), "recovered": self._recovered(b, self._prompts_of(b).detach())}
        total = parts["erased"] + self.config.preserve * parts["recovered"]
        if len(self.points) > 1:
            r = self.points[1].draw(self.originals)
            parts["kept"] = mse_loss(self._predict(r, r.texts), r.cond)
            total = total + self.config.star_weight * parts["kept"]
        return Terms(total, parts, next(iter(self.prompts.values()))[0])  # the first target's, as its keys see it

    def _predict(self, b: NoisyBatch, texts: Sequence[str]) -> Tensor:
        return self.base.predict(b.x_t, b.t, self.base.encode(texts).to(self.base.device, self.base.dtype))

    def _prompts_of(self, b: NoisyBatch) -> Tensor:
        """(B, S, k, D)."""
        return torch.stack([self.prompts[_key(self.owners[t], self.config)] for t in b.texts])

    def _recovered(self, b: NoisyBatch, prompts: Tensor) -> Tensor:
        """|eps'(c_e, p) - eps*(c_e)|^2."""
        with injected(self.base, prompts, self.config.mode, self.config.place):
            return mse_loss(self._predict(b, b.texts), b.cond)

    def _neutral(self, b: NoisyBatch) -> Tensor:
        """eps*(c_n)."""
        if not self.config.neutral.strip():
            return b.uncond
        with torch.no_grad(), self.base.swapped(self.originals):
            return self._predict(b, [_neutral_text(self.owners[t], t, self.config) for t in b.texts])


def _key(concept: Concept, config: KPOPConfig) -> str:
    """The name of a target's prompt."""
    return PREFIX + (concept.name if config.prompts == "each" else SHARED)


def _first_prompts(base: Base, targets: Sequence[Concept], config: KPOPConfig, ctx: Context) -> dict[str, Tensor]:
    """Random prompts (S, k, D) by name, as large as text states; leaves that require gradients."""
    states = base.encode([text for concept in targets for text in concept.texts(config.texts)]).hidden
    length, width = states.shape[1:]
    shape = (2 if config.separate else 1, length * (config.size if config.mode == "concat" else 1), width)
    scale = config.init * float(states.std())
    names = list(dict.fromkeys(_key(c, config) for c in targets))
    return {n: (scale * torch.randn(shape, generator=ctx.generator)).to(base.device).requires_grad_() for n in names}


def _neutral_text(concept: Concept, text: str, config: KPOPConfig) -> str:
    """c_n for a text of a target: the anchor in the phrase's place, or the same text for all."""
    if config.neutral != "anchor":
        return config.neutral
    template, _ = next((t, p) for p in concept.phrases for t in concept.templates if t.format(p) == text)
    return template.format(concept.anchor)
