"""Concept Ablation (Kumari et al. 2023; ACTD, AbConcept in other papers): the target's prompt is answered like its anchor's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.loop import Terms, TrainingConfig, train, trainable
from conceptbench.erasers.shared.references import Noised, References
from conceptbench.erasers.shared.spans import anchor_text, check_anchors
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of


class CAConfig(TrainingConfig):
    """Options; the defaults are the released code's for styles, on two GPUs.

    Attributes:
        goal: of the target's prompt: the prediction for the anchor's prompt (``model``), or the noise that is in the anchor's
            image (``noise``).
        teacher: whose prediction that is: of the model being trained, without gradient (``self``), or of the ``frozen`` base.
        prior: weight of a term that keeps the anchor: at the same x_t with the anchor's prompt, the noise again, or with a
            frozen teacher the teacher's prediction.
        pictures: whose images are noised: the ``anchor``'s, or the ``target``'s own.
        images: of each target.
        texts: in how many of its training templates each phrase of a target is used; None for all.
        cut: for a target without an anchor: the anchor's text ends where the phrase would stand; for explicit concepts that what
            follows brings out by itself.
        detach_start: keys and values of the start token give no gradient, as in the released code.
    """

    parameters: str = "kv"
    steps: int = Field(default=100, ge=1)
    batch: int = Field(default=8, ge=1)
    lr: float = Field(default=1.6e-5, gt=0)
    optimiser: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(default=1e-2, ge=0)
    clip: float | None = 1.0
    goal: Literal["model", "noise"] = "model"
    teacher: Literal["self", "frozen"] = "self"
    prior: float = Field(default=0.0, ge=0)
    pictures: Literal["anchor", "target"] = "anchor"
    images: int = Field(default=1000, ge=1)
    texts: int | None = Field(default=None, ge=1)
    cut: bool = False
    detach_start: bool = True


def text_pairs(concept: Concept, config: CAConfig) -> list[tuple[str, str]]:
    """(target's prompt, anchor's prompt) for every phrase in every template."""
    templates = concept.templates[: config.texts]
    return [(template.format(phrase), anchor_text(template, concept.anchor, cut=config.cut)) for phrase in concept.phrases for template in templates]


@contextmanager
def start_detached(base: Base, *, active: bool) -> Iterator[None]:
    """Inside, no gradient passes the keys and values of the first token of cross-attention; their values stay as they are."""
    layers = [m for n, m in base.network.named_modules() if n.endswith((".attn2.to_k", ".attn2.to_v"))] if active else []
    hooks = [layer.register_forward_hook(lambda _module, _args, out: torch.cat([out[:, :1].detach(), out[:, 1:]], 1)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Pictures:
    """Noised images with a prompt for the target and one for its anchor.

    Args:
        base: whose images.
        ctx: draws them.
        targets: each has images of its own.
        config: how many images and of what.
    """

    def __init__(self, base: Base, ctx: Context, targets: Sequence[Concept], config: CAConfig) -> None:
        self.base, self.ctx, self.config = base, ctx, config
        self.pairs: list[dict[str, list[tuple[str, str]]]] = []  # of each target: the image's prompt -> the pairs that it fits
        parts = []
        for concept in targets:
            found: dict[str, list[tuple[str, str]]] = {}
            for pair in text_pairs(concept, config):
                found.setdefault(pair[config.pictures == "anchor"], []).append(pair)
            self.pairs.append(found)
            surrogate = Concept(name=f"{concept.name} ({config.pictures})", kind=concept.kind, phrases=tuple(found))
            parts.append(References.of(base, ctx, surrogate, config.images))
        self.references = References.cat(parts)

    def draw(self) -> tuple[Noised, list[str], list[str]]:
        """A batch, the targets' prompts, and the anchors'."""
        b = self.references.draw(self.base, self.config.batch, self.ctx.generator)
        shares = torch.rand(self.config.batch, generator=self.ctx.generator).tolist()
        fitting = [self.pairs[i // self.config.images][text] for i, text in zip(b.index.tolist(), b.texts, strict=True)]
        chosen = [found[int(u * len(found))] for found, u in zip(fitting, shares, strict=True)]
        return b, [target for target, _ in chosen], [anchor for _, anchor in chosen]


def native(base: Base, b: Noised, *texts: list[str]) -> Tensor:
    """(k B, C, h, w) the denoiser's own predictions for the batch, once with each of the k lists of B prompts."""
    encoded = base.encode([t for part in texts for t in part]).to(base.device, base.dtype)
    return base.predict(torch.cat([b.x_t] * len(texts)), torch.cat([b.t] * len(texts)), encoded, to="native")


def ablation(base: Base, b: Noised, targets: list[str], anchors: list[str], config: CAConfig, frozen: dict[str, Tensor]) -> Terms:
    """The loss of a batch (Kumari et al. 2023, section 3), in what the denoiser predicts (noise or v), as the released code compares it.

    Args:
        base: the model being trained.
        b: noised images.
        targets: B prompts to erase.
        anchors: B prompts that they become.
        config: which goal, which teacher, and the weight of the prior.
        frozen: values for the teacher: the base's, or none for the model as it is.
    """
    out = native(base, b, targets, anchors) if config.prior else native(base, b, targets)
    target, kept = out[: len(b.x)], out[len(b.x) :]
    noise = base.native_goal(b.x, b.noise, b.t)
    wanted = kept.detach()  # the current model's, if it is there already
    if (config.goal == "model" and not config.prior) or (config.teacher == "frozen" and config.prior):
        with torch.no_grad(), base.swapped(frozen):
            wanted = native(base, b, anchors)
    erased = mse_loss(target, wanted if config.goal == "model" else noise)
    if not config.prior:
        return Terms(erased)
    prior = mse_loss(kept, wanted if config.teacher == "frozen" else noise)
    return Terms(erased + config.prior * prior, {"erased": erased, "prior": prior})


class ConceptAblation(Eraser[CAConfig]):
    """|| eps(x_t, target) - sg eps(x_t, anchor) ||^2 at noised images of the anchor; w_t is 1, as in the released code."""

    name = "ca"
    summary = "trains the model's prediction for the concept to the one for its anchor, on images of the anchor"
    reference = "Kumari et al. 2023, arXiv:2303.13516"
    Config: ClassVar[type[EraserConfig]] = CAConfig
    variants = MappingProxyType(
        {
            "": {},
            "noise": {"goal": "noise"},
            "xattn": {"parameters": "xattn"},
            "attn": {"parameters": "attn"},
            "full": {"parameters": "full"},
        }
    )
    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: CAConfig, targets: int) -> Load:
        """The images, the teacher's rows, and the trained ones."""
        rows = config.steps * config.batch
        separate = config.goal == "model" and not (config.prior and config.teacher == "self")
        own = rows if separate or (config.prior and config.teacher == "frozen") else 0
        return Load(own, rows * (2 if config.prior else 1), config.batch, config.parameters, targets * config.images)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: CAConfig) -> None:  # noqa: ARG003 - any base and options will do
        """Refuses anchors that are erased themselves: there would be nothing to learn, or the wrong thing."""
        check_anchors(request)

    def erase(self, base: Base, request: EraseRequest, config: CAConfig, ctx: Context) -> Erasure:
        """Trains the chosen parameters; images of several targets' anchors are drawn at random."""
        pictures = Pictures(base, ctx, request.targets, config)
        with trainable(base, config.parameters) as parameters, start_detached(base, active=config.detach_start):
            originals = values_of(parameters)
            frozen = originals if config.teacher == "frozen" else {}
            trained = train(parameters, lambda _step: ablation(base, *pictures.draw(), config, frozen), config, ctx)
            return Erasure.additive(originals, trained)
