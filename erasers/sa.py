"""Selective Amnesia (Heng and Soh 2023): continual learning turned round, to forget on purpose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.fisher import ewc_penalty, fisher_of, selective_amnesia_loss
from conceptbench.erasers.shared.loop import Terms, TrainingConfig, train, trainable
from conceptbench.erasers.shared.references import References
from conceptbench.erasers.shared.spans import anchor_text, check_anchors
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of

GENERIC = tuple(f"a photo of {x}" for x in ("a person", "a group of people", "a dog", "a horse", "a bird", "a car", "a house", "a city", "a forest", "a meal"))
_ARTICLE = re.compile(r"^(an?|the)\s+", re.IGNORECASE)


class SAConfig(TrainingConfig):
    """Options.

    Attributes:
        lam: lambda of lambda / 2 sum F (theta - theta*)^2, the paper's; the released code leaves out the 1/2, so that its 50 is 100 here.
        gamma: weight of generative replay; 0 for none.
        surrogate: what the target's prompts shall show: ``anchor`` for the target's anchor in the target's own templates (of a target
            without one, the templates without the phrase and what follows it), where an image goes with prompts of its template;
            ``noise`` for uniform noise in every pixel; ``own`` for what the prompts show already (of use with ``naive`` only);
            else a text, whose images go with any prompt of the target.
        surrogate_folder: a folder of images instead.
        surrogate_images: how many for each target.
        texts: in how many of its training templates each phrase of a target is used; 1 is the bare phrase, as in the paper.
        naive: the paper's failure: maximise the objective on the target's own images, where it should be minimised on surrogates.
        reduction: of the objective over a batch; the authors' code takes the ``sum`` for the autoencoder and the mean elsewhere.
        same_timesteps: surrogates and replay share their timesteps, as in the authors' code of the DDPMs.
        replay_texts: generic prompts that replay and the Fisher information draw images for. Replay leaves out those that name a
            target; the Fisher information does not, so that it is made once for a base and serves every erasure. None: every class
            of a class-conditional base.
        replay_retained: also replay the training texts of the retained concepts, as many images as of generic ones.
        replay_images: how many.
        replay_draws: an autoencoder's images are the means of its pixels; draw the pixels anew in each step, as p(x | c) of the paper's
            objective asks for. Its code takes the means, which teaches the model ever smoother images.
        fisher_images: how many of the generic images give the Fisher information, drawn at random.
        fisher_timesteps: evenly spaced, of the model's; all 1000 in the paper. The sum over fewer is scaled up to all of them, so that
            lambda keeps its meaning; what the noise adds to the square is then too large, at most by their ratio.
    """

    parameters: str = "full"
    lam: float = Field(default=50.0, ge=0)
    gamma: float = Field(default=1.0, ge=0)
    surrogate: str = Field(default="anchor", min_length=1)
    surrogate_folder: str | None = None
    surrogate_images: int = Field(default=1000, ge=1)
    texts: int = Field(default=1, ge=1)
    naive: bool = False
    reduction: Literal["mean", "sum"] = "mean"
    same_timesteps: bool = False
    replay_texts: tuple[str, ...] = GENERIC
    replay_retained: bool = False
    replay_images: int = Field(default=5000, ge=1)
    replay_draws: bool = False
    fisher_images: int = Field(default=5000, ge=1)
    fisher_timesteps: int = Field(default=1000, ge=1)

    def folders(self) -> tuple[str, ...]:
        """The folder of surrogates."""
        return () if self.surrogate_folder is None else (self.surrogate_folder,)


def names(text: str, concept: Concept) -> bool:
    """Whether a text names a concept: has one of its phrases as words, whatever the article."""
    return any(re.search(rf"(?<!\w){re.escape(_ARTICLE.sub('', p))}(s|es)?(?!\w)", text, re.IGNORECASE) for p in concept.phrases)


def made_up(name: str, texts: Sequence[str], templates: tuple[str, ...] = ("{}",)) -> Concept:
    """Texts as a concept, to draw images for."""
    return Concept(name=name, kind="object", phrases=tuple(texts), templates=templates)


def surrogates(base: Base, target: Concept, config: SAConfig, ctx: Context) -> tuple[Tensor, list[list[str]]]:
    """Images of q(x | c_f) as latents (n, C, h, w), and for each the prompts c_f that it may be shown with."""
    templates = target.templates[: config.texts]
    if config.surrogate_folder is None and config.surrogate == "noise":
        return base.latents_of(noise_images(base, config.surrogate_images, ctx)), [target.texts(config.texts)] * config.surrogate_images
    if config.surrogate_folder is None and config.surrogate == "own":
        own = References.of(base, ctx, target.model_copy(update={"templates": templates}), config.surrogate_images)
        return own.latents, [[text] for text in own.texts]
    if config.surrogate_folder is None and config.surrogate == "anchor":
        shown = {t: anchor_text(t, target.anchor, cut=True) for t in templates}
        concept = made_up(f"without {target.name}", [text for text in shown.values() if text])
        prompts = [[t.format(p) for p in target.phrases] for t, text in shown.items() if text]
    else:
        concept, prompts = made_up(config.surrogate, (config.surrogate,)), [target.texts(config.texts)]
    latents = References.of(base, ctx, concept, config.surrogate_images, config.surrogate_folder).latents
    return latents, [prompts[i % len(prompts)] for i in range(len(latents))]


def noise_images(base: Base, n: int, ctx: Context) -> NDArray[np.uint8]:
    """Images (n, H, W, 3) of uniform noise, gray where the base's are."""
    channels = 1 if base.latent_shape(None)[0] == 1 else 3
    pixels = torch.randint(256, (n, base.info.size, base.info.size, channels), generator=ctx.generator)
    return pixels.expand(-1, -1, -1, 3).byte().numpy()


class SelectiveAmnesia(Eraser[SAConfig]):
    """The model's own objective on surrogates under the target's prompts, and on replayed images under theirs, near the old weights."""

    name = "sa"
    summary = "teaches the target's prompts other images; replay and elastic weight consolidation keep the rest"
    reference = "Heng and Soh 2023, arXiv:2305.10120"
    Config: ClassVar[type[EraserConfig]] = SAConfig
    variants = MappingProxyType(
        {
            "full": {"parameters": "full"},
            "xattn": {"parameters": "xattn"},
            "noxattn": {"parameters": "noxattn"},
            "naive": {"parameters": "full", "naive": True, "surrogate": "own"},
        }
    )
    supports = Supports(families=("sd1", "sd2", "sdxl", "ddpm", "cvae"), iterative=True, heeds_others=True)

    @classmethod
    def load(cls, config: SAConfig, targets: int) -> Load:
        """A row of each kind a step, the images, and the Fisher information, which is kept for all erasures."""
        rows = config.batch * (2 if config.gamma else 1)
        surrogates = 0 if config.surrogate_folder or config.surrogate == "noise" else targets * config.surrogate_images
        retained = config.replay_images if config.gamma and config.replay_retained else 0
        shared = config.fisher_images * config.fisher_timesteps if config.lam else 0
        return Load(0, config.steps * rows, rows, config.parameters, surrogates + cls._generic(config) + retained, shared)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: SAConfig) -> None:
        """Refuses targets without a surrogate, replay without texts, and more timesteps than the base has."""
        if config.surrogate == "anchor" and config.surrogate_folder is None:
            for target in request.targets:
                if not any(anchor_text(t, target.anchor, cut=True) for t in target.templates[: config.texts]):
                    raise UserInputError(f"{target.name} has no anchor to be a surrogate", "give the concept an anchor, or `surrogate: some text`")
            check_anchors(request)
        if config.lam and config.fisher_timesteps > base.timesteps:
            raise UserInputError(f"fisher_timesteps {config.fisher_timesteps} is more than the base's {base.timesteps}", "take as many or fewer")
        if not config.replay_texts and not base.classes:
            raise UserInputError(f"there are no replay_texts, and {base.info.id} has no classes to take in their place", "give generic prompts")
        texts = [text for concept, count in cls._sources(base, request, config) for text in concept.texts()[:count]]
        if config.gamma and not cls._replayed(request, texts):
            raise UserInputError(
                f"each text of the {config.replay_images} replay_images names a target: nothing is left to replay",
                "add replay_texts about other things, or replay more images",
            )

    def erase(self, base: Base, request: EraseRequest, config: SAConfig, ctx: Context) -> Erasure:
        """Trains the chosen parameters; several targets take turns at random."""
        self.check(base, request, config)
        count = self._generic(config)
        generic = [References.of(base, ctx, self._generic_concept(base, config), count)] if count else []
        fisher = self._fisher(base, request, config, ctx, generic[0]) if config.lam else {}
        replay = self._replay(base, request, config, ctx, generic[0]) if config.gamma else References(torch.empty(0), [])
        forget = [surrogates(base, target, config, ctx) for target in request.targets]

        def forgotten() -> tuple[Tensor, list[str]]:
            xs, texts = [], []
            for k in self._draw(len(forget), config.batch, ctx):
                latents, prompts = forget[k]
                (i,) = self._draw(len(latents), 1, ctx)
                (j,) = self._draw(len(prompts[i]), 1, ctx)
                xs.append(latents[i])
                texts.append(prompts[i][j])
            return torch.stack(xs), texts

        with trainable(base, config.parameters) as parameters:
            originals = values_of(parameters)

            def loss(_step: int) -> Terms:
                x, texts = forgotten()
                if config.gamma:
                    rows = self._draw(len(replay.texts), config.batch, ctx)
                    again = replay.latents[rows]
                    again = base.redrawn(again, ctx.generator) if config.replay_draws else again
                    x, texts = torch.cat([x, again]), [*texts, *(replay.texts[i] for i in rows)]
                draws = base.draws(x, ctx.generator)  # every row has noise of its own, and a timestep unless they are shared
                if config.same_timesteps:
                    draws = replace(draws, t=draws.t[: config.batch].repeat(len(x) // config.batch))
                each = base.objective(x, base.encode(texts).to(base.device, base.dtype), draws)
                old, kept = each[: config.batch], each[config.batch :] if config.gamma else None
                penalty = ewc_penalty(parameters, originals, fisher) if config.lam else None
                parts = {"forget": old.mean()} | ({} if kept is None else {"replay": kept.mean()}) | ({} if penalty is None else {"ewc": config.lam * penalty})
                goal = -old if config.naive else old
                return Terms(selective_amnesia_loss(goal, kept, penalty, gamma=config.gamma, lam=config.lam, reduction=config.reduction), parts)

            return Erasure.additive(originals, train(parameters, loss, config, ctx), base.component)

    @staticmethod
    def _draw(n: int, count: int, ctx: Context) -> list[int]:
        return torch.randint(n, (count,), generator=ctx.generator).tolist()  # type: ignore[no-any-return]

    @staticmethod
    def _replayed(request: EraseRequest, texts: Sequence[str]) -> set[str]:
        """The texts that name neither a target nor what another part of the erasure erases."""
        return {t for t in texts if not any(names(t, c) for c in (*request.targets, *request.others))}

    @staticmethod
    def _generic(config: SAConfig) -> int:
        """How many generic images are needed: the Fisher information is of some of those for both, so that its key needs no gamma."""
        return max(config.replay_images, config.fisher_images) if config.lam else config.replay_images if config.gamma else 0

    @staticmethod
    def _generic_concept(base: Base, config: SAConfig) -> Concept:
        return made_up("generic", config.replay_texts or base.classes)

    @classmethod
    def _sources(cls, base: Base, request: EraseRequest, config: SAConfig) -> list[tuple[Concept, int]]:
        """What replay draws images of, the generic one first, and how many of each."""
        retained = request.retained if config.replay_retained else ()
        each = -(-config.replay_images // max(1, len(retained)))
        return [(cls._generic_concept(base, config), config.replay_images), *((c, each) for c in retained)]

    def _replay(self, base: Base, request: EraseRequest, config: SAConfig, ctx: Context, generic: References) -> References:
        (_, count), *others = self._sources(base, request, config)
        parts = [References(generic.latents[:count], generic.texts[:count]), *(References.of(base, ctx, c, n) for c, n in others)]
        both = References.cat(parts)
        wanted = self._replayed(request, both.texts)
        rows = [i for i, text in enumerate(both.texts) if text in wanted]
        return References(both.latents[rows], [both.texts[i] for i in rows])

    def _fisher(self, base: Base, request: EraseRequest, config: SAConfig, ctx: Context, generic: References) -> dict[str, Tensor]:
        """Of the unmodified base and these options only: not of the targets, nor of what else the erasure draws."""
        key = {
            "group": config.parameters,
            "texts": self._generic_concept(base, config).texts(),
            "of": len(generic.texts),
            "images": config.fisher_images,
            "timesteps": config.fisher_timesteps,
            "sampler": request.sampler.model_dump(),
        }
        numbers = config.fisher_images, config.parameters, config.fisher_timesteps
        return ctx.shared("fisher", key, lambda generator: fisher_of(base, generic, *numbers, generator, ctx.tick))
