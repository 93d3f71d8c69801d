"""Selective Amnesia (Heng and Soh 2023): continual learning turned round, to forget on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.fisher import ewc_penalty, fisher_information, selective_amnesia_loss
from conceptbench.erasers.shared.loop import Terms, TrainingConfig, train, trainable
from conceptbench.erasers.shared.references import References
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Erasure, values_of

FISHER_ROWS = 10
"""Timesteps of one backward pass for the Fisher information: bounds the memory, changes nothing but rounding."""
GENERIC = tuple(f"a photo of {x}" for x in ("a person", "a group of people", "a dog", "a horse", "a bird", "a car", "a house", "a city", "a forest", "a meal"))
_ARTICLE = re.compile(r"^(an?|the)\s+", re.IGNORECASE)


class SAConfig(TrainingConfig):
    """Options.

    Attributes:
        lam: lambda of lambda / 2 sum F (theta - theta*)^2, the paper's; the released code leaves out the 1/2, so that its 50 is 100 here.
        gamma: weight of generative replay; 0 for none.
        surrogate: what the target's prompts shall show: ``anchor`` for the target's anchor in the target's own templates, where an
            image goes with prompts of its template; else a text, whose images go with any prompt of the target.
        surrogate_folder: a folder of images instead.
        surrogate_images: how many for each target.
        texts: in how many of its training templates each phrase of a target is used; 1 is the bare phrase, as in the paper.
        replay_texts: generic prompts that replay and the Fisher information draw images for. Replay leaves out those that name a
            target; the Fisher information does not, so that it is made once for a base and serves every erasure.
        replay_retained: also replay the training texts of the retained concepts, as many images as of generic ones.
        replay_images: how many.
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
    replay_texts: tuple[str, ...] = Field(default=GENERIC, min_length=1)
    replay_retained: bool = False
    replay_images: int = Field(default=5000, ge=1)
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
    if config.surrogate_folder is None and config.surrogate == "anchor":
        concept = made_up(f"{target.anchor} for {target.name}", (target.anchor,), templates)
        prompts = [[t.format(p) for p in target.phrases] for t in templates]
    else:
        concept, prompts = made_up(config.surrogate, (config.surrogate,)), [target.texts(config.texts)]
    latents = References.of(base, ctx, concept, config.surrogate_images, config.surrogate_folder).latents
    return latents, [prompts[i % len(prompts)] for i in range(len(latents))]


def fisher_of(base: Base, images: References, group: str, timesteps: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The Fisher information of the base's own objective, summed over evenly spaced timesteps and scaled up to all of them.

    Args:
        base: as it is.
        images: clean latents with their prompts.
        group: of parameters.
        timesteps: how many of the base's.
        generator: of the noise, one for each image and timestep.
    """
    total = len(base.alphas)
    times = (2 * torch.arange(timesteps) + 1) * total // (2 * timesteps)

    def elbo(i: int) -> Iterator[Tensor]:
        for t in times.split(FISHER_ROWS):
            noised = images.noised(base, torch.full_like(t, i), t, torch.randn((len(t), *images.latents.shape[1:]), generator=generator))
            predicted = base.predict(noised.x_t, noised.t, base.encode(noised.texts).to(base.device, base.dtype), to="native")
            goal = base.native_goal(noised.x, noised.noise, noised.t)
            yield ((predicted - goal) ** 2).mean((1, 2, 3)).sum() * (total / timesteps)

    with trainable(base, group) as parameters:
        return fisher_information(parameters, elbo, len(images.texts))


class SelectiveAmnesia(Eraser[SAConfig]):
    """The model's own objective on surrogates under the target's prompts, and on replayed images under theirs, near the old weights."""

    name = "sa"
    summary = "teaches the target's prompts other images; replay and elastic weight consolidation keep the rest"
    reference = "Heng and Soh 2023, arXiv:2305.10120"
    Config: ClassVar[type[EraserConfig]] = SAConfig
    variants = MappingProxyType({"full": {"parameters": "full"}, "xattn": {"parameters": "xattn"}, "noxattn": {"parameters": "noxattn"}})
    supports = Supports(iterative=True)

    @classmethod
    def load(cls, config: SAConfig, targets: int) -> Load:  # noqa: ARG003 - targets take turns; images and Fisher information are the store's
        """A row of each kind a step; images and the Fisher information are kept for all erasures and no part of what one costs."""
        rows = config.batch * (2 if config.gamma else 1)
        return Load(0, config.steps * rows, rows, config.parameters)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: SAConfig) -> None:
        """Refuses targets without a surrogate, replay without texts, and more timesteps than the base has."""
        if config.surrogate == "anchor" and config.surrogate_folder is None:
            for target in request.targets:
                if not target.anchor:
                    raise UserInputError(f"{target.name} has no anchor to be a surrogate", "give the concept an anchor, or `surrogate: some text`")
        if config.fisher_timesteps > len(base.alphas):
            raise UserInputError(f"fisher_timesteps {config.fisher_timesteps} is more than the base's {len(base.alphas)}", "take as many or fewer")
        if config.gamma and not cls._replayed(request, config.replay_texts):
            raise UserInputError("every one of replay_texts names a target: nothing is left to replay", "add texts about other things")

    def erase(self, base: Base, request: EraseRequest, config: SAConfig, ctx: Context) -> Erasure:
        """Trains the chosen parameters; several targets take turns at random."""
        self.check(base, request, config)
        generic = References.of(base, ctx, made_up("generic", config.replay_texts), max(config.replay_images, config.fisher_images))
        fisher = self._fisher(base, request, config, ctx, generic) if config.lam else {}
        replay = self._replay(base, request, config, ctx, generic)
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
                    x, texts = torch.cat([x, replay.latents[rows]]), [*texts, *(replay.texts[i] for i in rows)]
                each = base.loss(x, base.encode(texts).to(base.device, base.dtype), ctx.generator)  # every row has a timestep and noise of its own
                old, kept = each[: config.batch], each[config.batch :] if config.gamma else None
                penalty = ewc_penalty(parameters, originals, fisher) if config.lam else None
                parts = {"forget": old.mean()} | ({} if kept is None else {"replay": kept.mean()}) | ({} if penalty is None else {"ewc": config.lam * penalty})
                return Terms(selective_amnesia_loss(old, kept, penalty, gamma=config.gamma, lam=config.lam), parts)

            return Erasure.additive(originals, train(parameters, loss, config, ctx))

    @staticmethod
    def _draw(n: int, count: int, ctx: Context) -> list[int]:
        return torch.randint(n, (count,), generator=ctx.generator).tolist()  # type: ignore[no-any-return]

    @staticmethod
    def _replayed(request: EraseRequest, texts: Sequence[str]) -> set[str]:
        """The texts that name neither a target nor what another part of the erasure erases."""
        return {t for t in texts if not any(names(t, c) for c in (*request.targets, *request.others))}

    def _replay(self, base: Base, request: EraseRequest, config: SAConfig, ctx: Context, generic: References) -> References:
        parts = [References(generic.latents[: config.replay_images], generic.texts[: config.replay_images])]
        if config.replay_retained and request.retained:
            each = -(-config.replay_images // len(request.retained))
            parts += [References.of(base, ctx, concept, each) for concept in request.retained]
        both = References.cat(parts)
        wanted = self._replayed(request, both.texts)
        rows = [i for i, text in enumerate(both.texts) if text in wanted]
        return References(both.latents[rows], [both.texts[i] for i in rows])

    def _fisher(self, base: Base, request: EraseRequest, config: SAConfig, ctx: Context, generic: References) -> dict[str, Tensor]:
        """Of the unmodified base and these options only: not of the targets, nor of what else the erasure draws."""
        count = max(config.replay_images, config.fisher_images)
        key = {
            "group": config.parameters,
            "texts": list(config.replay_texts),
            "of": count,
            "images": config.fisher_images,
            "timesteps": config.fisher_timesteps,
            "sampler": request.sampler.model_dump(),
        }

        def make(generator: torch.Generator) -> dict[str, Tensor]:
            rows = torch.randperm(count, generator=generator)[: config.fisher_images].tolist()
            images = References(generic.latents[rows], [generic.texts[i] for i in rows])
            return fisher_of(base, images, config.parameters, config.fisher_timesteps, generator)

        return ctx.shared("fisher", key, make)
