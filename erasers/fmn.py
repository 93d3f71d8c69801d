"""Forget-Me-Not (Zhang et al. 2023): attention re-steering, with or without concept inversion before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.attention import Attended, cross_attention
from conceptbench.erasers.shared.latents import draw_seeds
from conceptbench.erasers.shared.loop import TrainingConfig, train, trainable
from conceptbench.erasers.shared.references import References
from conceptbench.models.attention_maps import phrase_in
from conceptbench.models.base import Base
from conceptbench.models.conditions import Encoded
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of
from conceptbench.models.inversion import InversionConfig, initial_vectors, invert
from conceptbench.models.pooling import encode_with, text_encoders, token_layout


class FMNConfig(TrainingConfig):
    """Options.

    Attributes:
        loss: ``attention``: the probabilities at the concept's tokens (the paper); ``logits``: SepME's baseline of this name, the
            mean squared difference of the logits of the text and of the empty prompt, at all tokens and before the softmax.
        form: of the attention loss: the ``norm`` of all chosen probabilities (released code), or their ``squared`` norm (Algorithm 1).
            Both are sums over the batch too.
        eos: which end-of-text tokens count as the concept's: ``none``; the ``first``, whose state sums the text up (what the released
            code's ``use_pooler`` does on SD 2); or ``padding``: every token with its id. SD 1 pads with that id, so this marks
            about 70 tokens of any text: it is what the released code does there, and another loss.
        images: reference images of each target.
        folder: a folder of images of the target, instead of the base's own.
        blank: x_0 = 0 instead of the images (the released code's ``no_real_image``).
        inversion: concept inversion: first learn vectors that stand for the images, then turn the attention away from these instead of
            the phrase's tokens. Its ``templates`` are the concept's unless given. None: the phrase's own tokens.
        tokens: vectors that are learned.
        spread: standard deviation of those vectors that begin at random; None for that of the text encoder's table.
    """

    loss: Literal["attention", "logits"] = "attention"
    form: Literal["norm", "squared"] = "norm"
    eos: Literal["none", "first", "padding"] = "none"
    images: int = Field(default=8, ge=1)
    folder: str | None = None
    blank: bool = False
    inversion: InversionConfig | None = None
    tokens: int = Field(default=4, ge=1)
    spread: float | None = Field(default=1.0, gt=0)

    def folders(self) -> tuple[str, ...]:
        """The folder of reference images."""
        return () if self.folder is None else (self.folder,)


def resteering(layers: Sequence[Attended], marks: Tensor, form: str) -> Tensor:
    """How much attention the marked tokens get: Zhang et al. 2023, Algorithm 1, line 9.

    Args:
        layers: of one forward of N rows.
        marks: (N, L) float32: 1 at the tokens that are to lose their attention, row by row.
        form: ``squared``: the sum of the squared probabilities over rows, layers, heads and cells; ``norm``: its square root.
    """
    total = torch.stack([torch.einsum("nhql,nl->", layer.probabilities().square(), marks) for layer in layers]).sum()
    return total.sqrt() if form == "norm" else total


def logit_difference(layers: Sequence[Attended], without: Tensor) -> Tensor:
    """The mean over layers of mean((Q K(c)^T - Q K(without)^T)^2 / d), per head: what SepME's authors call Forget-Me-Not.

    Args:
        layers: of one forward of N rows.
        without: (N, L, D) the text encoder's states of texts without the concept.
    """
    return torch.stack([layer.logits(layer.key - layer.site.module.to_k(without)).square().mean() for layer in layers]).mean()  # type: ignore[operator]


def end_of_text(ids: Sequence[int], eos: int, which: str) -> list[int]:
    """Positions of end-of-text tokens in a text's ids: none, the first, or with ``padding`` all."""
    found = [i for i, token in enumerate(ids) if token == eos]
    return {"none": [], "first": found[:1], "padding": found}[which]


class ForgetMeNot(Eraser[FMNConfig]):
    """Lowers the cross-attention that the concept's tokens get on noised images of it; the denoiser's answer does not matter."""

    name = "fmn"
    summary = "turns the cross-attention away from the concept's tokens"
    reference = "Zhang et al. 2023, arXiv:2303.17591"
    Config: ClassVar[type[EraserConfig]] = FMNConfig
    variants = MappingProxyType(
        {
            "": {},
            "full": {"parameters": "full"},
            # the released configuration; its schedule `constant` ignores its 100 steps of warm-up
            "ci": {"inversion": {"steps": 500, "batch": 1, "lr": 1e-3, "weight_decay": 0.1, "norm": 0.4}},
        }
    )

    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: FMNConfig, targets: int) -> Load:
        """The reference images, the training steps, and the inversions with their losses before and after."""
        learned = 0 if config.inversion is None else targets * config.inversion.steps * config.inversion.batch
        evaluated = 0 if config.inversion is None else targets * 2 * config.inversion.evaluation
        drawn = 0 if config.folder or (config.blank and not learned) else targets * config.images
        return Load(evaluated, learned + config.steps * config.batch, config.batch, config.parameters, drawn)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: FMNConfig) -> None:
        """The texts hold their phrases whole, the text encoder can be inverted, and a folder is one target's."""
        if config.folder is not None and len(request.targets) > 1:
            raise UserInputError(f"folder {config.folder!r} shows one concept, but there are {len(request.targets)} targets", "erase them one by one")
        for concept in request.targets:
            for template in concept.templates:
                if config.inversion is not None:
                    token_layout(text_encoders(base)[0], template, config.tokens)
                else:
                    for phrase in concept.phrases:
                        _positions(base, template.format(phrase), phrase)

    def erase(self, base: Base, request: EraseRequest, config: FMNConfig, ctx: Context) -> Erasure:
        """Trains on the images of all targets, drawn at random."""
        self.check(base, request, config)
        own = [self._references(base, concept, request.sampler.size, config, ctx) for concept in request.targets]
        references, vectors = References.cat(own), dict[str, Tensor]()
        if config.inversion is not None:
            for i, (concept, images) in enumerate(zip(request.targets, own, strict=True)):
                vectors[concept.name] = self._inverted(base, concept, i, images.latents, config, ctx)
            if config.blank:
                references = References(torch.zeros_like(references.latents), references.texts)
        known = {t: row for c in request.targets for t, row in self._rows(base, c, config, vectors.get(c.name)).items()}
        without = base.encode_unconditional([""]).hidden.to(base.device, base.dtype)

        def loss(_step: int) -> Tensor:
            b = references.draw(base, config.batch, ctx.generator)
            encoded = Encoded.cat([known[t][0] for t in b.texts]).to(base.device, base.dtype)
            with cross_attention(base) as layers:
                base.predict(b.x_t, b.t, encoded, to="native")
            if config.loss == "logits":
                return logit_difference(layers, without.expand(config.batch, -1, -1))
            return resteering(layers, torch.stack([known[t][1] for t in b.texts]).to(base.device), config.form)

        with trainable(base, config.parameters) as parameters:
            originals = values_of(parameters)
            erasure = Erasure.additive(originals, train(parameters, loss, config, ctx))
        erasure.artefacts.update({f"inversion/{name}": v.cpu() for name, v in vectors.items()})
        return erasure

    def _references(self, base: Base, concept: Concept, size: int | None, config: FMNConfig, ctx: Context) -> References:
        """Images of a concept as latents, each with its text; zeros with the concept's texts where no image is needed."""
        if not config.blank or config.inversion is not None:
            return References.of(base, ctx, concept, config.images, config.folder)
        texts = concept.texts()
        return References(torch.zeros(len(texts), *base.latent_shape(size), device=base.device, dtype=base.dtype), texts)

    def _inverted(self, base: Base, concept: Concept, number: int, latents: Tensor, config: FMNConfig, ctx: Context) -> Tensor:
        """(k, W) vectors that stand for the images of a concept, which is target ``number`` (its name may be no file's name)."""
        assert config.inversion is not None
        options = config.inversion
        if "templates" not in options.model_fields_set:
            options = options.model_copy(update={"templates": concept.templates})

        def make() -> dict[str, Tensor]:
            seed, evaluation = draw_seeds(2, ctx.generator)
            initial = initial_vectors(base, concept.phrases[0], config.tokens, [seed], config.spread)
            return {"vectors": invert(base, latents, initial, [seed], options, evaluation_seed=evaluation).vectors[0]}

        return ctx.once(f"inversion-{number}", make)["vectors"]

    def _rows(self, base: Base, concept: Concept, config: FMNConfig, vectors: Tensor | None) -> Mapping[str, tuple[Encoded, Tensor]]:
        """By text: the condition, one row, and (L,) marks of the tokens that are to lose their attention."""
        rows: dict[str, tuple[Encoded, Tensor]] = {}
        for phrase in concept.phrases:
            for template in concept.templates:
                text = template.format(phrase)
                if vectors is None:
                    ids, positions, encoded = base.tokenize(text), _positions(base, text, phrase), base.encode([text])
                else:
                    ids, start = token_layout(text_encoders(base)[0], template, len(vectors))
                    positions = list(range(start, start + len(vectors)))
                    with torch.no_grad():
                        encoded = encode_with(base, template, vectors)
                marks = torch.zeros(len(ids))
                marks[[*positions, *end_of_text(ids, base.pipeline.tokenizer.eos_token_id, config.eos)]] = 1
                rows[text] = encoded, marks
        return rows


def _positions(base: Base, text: str, phrase: str) -> list[int]:
    """Where a phrase's tokens are in a text, without its article: that one is everywhere.

    Raises:
        UserInputError: the tokenizer cuts the phrase off.
    """
    bare = phrase_in(base, text, [phrase])
    if bare is None:
        raise UserInputError(f"the tokens of {phrase!r} are not in {text!r} as the base encodes it", "shorten the text, or use another template")
    return base.token_positions(text, bare)
