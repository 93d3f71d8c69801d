"""M-Score: does a model still lead from a concept's images back to the concept's word? By textual inversion.

``M = cos(emb_r, emb_f)``: emb_r is the text encoder's state for the concept's word, emb_f that for the tokens which textual inversion of
the concept's images finds with the model under test (Forget-Me-Not, sec. 4.3). Its code was never released: this is a reconstruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from conceptbench.core.files import key_of
from conceptbench.core.metric import Better
from conceptbench.core.schemas import Concept, Role, Sampler
from conceptbench.core.seeds import training_seed
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import Load
from conceptbench.models.inversion import Inversion, InversionConfig, initial_vectors, invert
from conceptbench.models.pooling import encode_with, pooled_texts, pooled_with, pseudo_words
from conceptbench.models.probe import Probe, Probed, ProbeRequest


def cosines(states: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each state with the reference.

    Args:
        states: (N, D).
        reference: (D,).

    Returns:
        (N,) in [-1, 1]; NaN where a state is not finite or has no direction.
    """
    x, y = np.asarray(states, np.float64), np.asarray(reference, np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y)
    usable = np.isfinite(lengths) & (lengths > 0)
    found: NDArray[np.float64] = np.where(usable, np.where(usable[:, None], x, 0) @ y / np.where(usable, lengths, 1), np.nan)
    return np.clip(found, -1, 1)


def mean_cosine(states: NDArray[Any], reference: NDArray[Any]) -> float:
    """The mean of :func:`cosines`, or NaN if there is no state."""
    return float(cosines(states, reference).mean()) if len(states) else float("nan")


def paraphrases(concept: Concept, form: str) -> list[str]:
    """The concept's other phrases in the form, and all its phrases in its own templates, without the reference text itself."""
    texts = [*(form.format(p) for p in concept.phrases), *concept.texts()]
    return [t for t in dict.fromkeys(texts) if t != form.format(concept.phrases[0])]


class MScore(Probe):
    """Cosine of the concept's word with the tokens that textual inversion finds, over several inversions.

    emb_r, the anchor images, their latents and the vectors at step 0 come from the unmodified base, so that all models start
    alike. The inverted tokens are embedded by the model's *own* text encoder: the state is the one that its denoiser would be
    conditioned on. Unless the erasure changes the text encoder, that is the base's. Losses are on one draw for all models.
    """

    name, summary = "m_score", "cosine of the concept's word with tokens inverted from its images (M-Score), a reconstruction"
    reference = "Forget-Me-Not (Zhang et al. 2023), sec. 4.3, table 1, and its configs/ti.yaml; textual inversion: Gal et al. 2022, arXiv:2208.01618"
    failure_modes = (
        "a reconstruction: prompt form, layer, images and settings are not in the paper; the protocol's last word pins all of ours",
        "with the concept's own word as initialiser it begins at 1, so that a lazy inversion scores high whatever the model has forgotten: see `start`",
        "a CLIP's texts are alike: compare with `chance` (other concepts' words) and `upper` (the concept's own paraphrases), not with 0 and 1",
        "an inversion that failed for another reason (few steps, a broken model) scores low, too: `loss-after` must be well below `loss-before`",
        "it says that the word no longer leads to the images; the images may still be reached from other tokens, as concept inversion attacks show",
        "where another word now leads to the concept's images as well, or the word to others, the inverted tokens may lie between both: a kept anchor can fall",
        "it does not see changes of sampling alone (negative prompts, guidance): their M-Score is the base's",
        "few inversions: the interval is over them, with the images fixed",
    )
    unit: ClassVar[str] = "cosine"
    parts: ClassVar[dict[str, str]] = {"start": "cosine", "chance": "cosine", "upper": "cosine", "loss-before": "loss", "loss-after": "loss"}
    spread_kind: ClassVar[str] = "inversion seeds"

    class Config(InversionConfig):
        """Options, beside those of textual inversion.

        Attributes:
            seeds: inversions.
            tokens: vectors that stand for the concept.
            images: anchor images.
            flip: whether mirrored images are used, too.
            initialiser: whose tokens the vectors begin as, the last ones if there are too many; ``{}`` stands for the concept's
                phrase (it leaks the answer).
            spread: standard deviation of the vectors that the initialiser leaves over; None for that of the encoder's table.
            style_templates: instead of ``templates`` for concepts of kind style.
            form: the text around the word and around the inverted tokens when they are compared; ``{}`` is bare.
            shown: inversions of which an image is drawn for the report.
        """

        seeds: int = Field(default=5, ge=1)
        tokens: int = Field(default=2, ge=1)
        images: int = Field(default=16, ge=1)
        flip: bool = False
        initialiser: str = "a picture"
        spread: float | None = Field(default=None, ge=0)
        style_templates: tuple[str, ...] = Field(default=("a picture in the style of {}",), min_length=1)
        form: str = "{}"
        shown: int = Field(default=2, ge=0)

        @field_validator("form", "style_templates")
        @classmethod
        def _one_slot(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
            for template in (value,) if isinstance(value, str) else value:
                if template.count("{}") != 1:
                    raise ValueError(f"{template!r} needs exactly one {{}}")
            return value

    config: MScore.Config

    @property
    def id(self) -> str:
        """``m_score``."""
        return "m_score"

    @property
    def arithmetic(self) -> str:
        """``recon-v1-4tok-500x1-`` and a digest of all options that shape the number."""
        c = self.config
        return f"recon-v1-{c.tokens}tok-{c.steps}x{c.batch}-{key_of(c.model_dump(mode='json', exclude={'shown'}))[:8]}"

    def better(self, role: Role) -> Better:
        """Lower for what is erased."""
        return "lower" if role == "target" else "higher"

    def applies(self, concept: Concept, role: Role) -> bool:
        """Always."""
        return True

    def work(self) -> int:
        """Steps of an inversion; all seeds take them together."""
        return self.config.steps

    def load(self, sampler: Sampler) -> Load:
        """All seeds' rows in every step, whose gradients go to the tokens through the whole denoiser; the losses before and after are few."""
        rows = self.config.seeds * self.config.batch
        return Load(trained=self.config.steps * rows, batch=rows, parameters="xattn", images=self.config.images)

    def prepare(self, base: Base, request: ProbeRequest) -> dict[str, NDArray[Any]]:
        """``reference`` (W,), ``paraphrases`` (P, W) and ``others`` (O, W) pooled states, ``latents`` (N, C, h, w), ``initial`` (S, k, W)."""
        c, concept = self.config, request.concept
        images = request.images(concept, c.images)
        own, others = paraphrases(concept, c.form), [c.form.format(o.phrases[0]) for o in request.others]
        states = pooled_texts(base, [c.form.format(concept.phrases[0]), *own, *others]).cpu().numpy()
        text = c.initialiser.replace("{}", concept.phrases[0])
        return {
            "reference": states[0],
            "paraphrases": states[1 : 1 + len(own)],
            "others": states[1 + len(own) :],
            "latents": base.latents_of(np.concatenate([images, images[:, :, ::-1]]) if c.flip else images).float().cpu().numpy(),
            "initial": initial_vectors(base, text, c.tokens, self._seeds(request), c.spread).numpy(),
        }

    def measure(self, base: Base, request: ProbeRequest, prepared: dict[str, NDArray[Any]]) -> Probed:
        """Inverts the anchor images.

        Returns:
            Units are inversions. ``arrays``: ``curve`` (S, steps) losses, ``vectors`` and ``initial`` (S, k, W), ``images`` (shown,
            H, W, 3) uint8 of the model with the inverted tokens.
        """
        c, reference = self.config, prepared["reference"]
        options = c.model_copy(update={"templates": self._templates(request.concept)})
        latents, initial = torch.from_numpy(prepared["latents"]), torch.from_numpy(prepared["initial"])
        number = training_seed("m_score evaluation", request.seed, request.concept.name)
        found = invert(base, latents, initial, self._seeds(request), options, evaluation_seed=number, progress=request.progress)
        values = {
            "": cosines(pooled_with(base, c.form, found.vectors).cpu().numpy(), reference),
            "start": cosines(pooled_with(base, c.form, initial).cpu().numpy(), reference),
            "chance": np.full(c.seeds, mean_cosine(prepared["others"], reference)),
            "upper": np.full(c.seeds, mean_cosine(prepared["paraphrases"], reference)),
            "loss-before": found.before.numpy(),
            "loss-after": found.after.numpy(),
        }
        return Probed(values, [f"inversion-{i}" for i in range(c.seeds)], dict(self._arrays(base, request, found)))

    def _seeds(self, request: ProbeRequest) -> list[int]:
        return [training_seed("m_score", request.seed, request.concept.name, i) for i in range(self.config.seeds)]

    def _templates(self, concept: Concept) -> tuple[str, ...]:
        return self.config.style_templates if concept.kind == "style" else self.config.templates

    def _arrays(self, base: Base, request: ProbeRequest, found: Inversion) -> Iterator[tuple[str, NDArray[Any]]]:
        yield from {"curve": found.curve.numpy(), "vectors": found.vectors.numpy(), "initial": found.initial.numpy()}.items()
        shown = min(self.config.shown, self.config.seeds)
        if shown:
            encoded = encode_with(base, self._templates(request.concept)[0], found.vectors[:shown])
            words = {f"<inverted {request.concept.name} {i}>": encoded[i : i + 1] for i in range(shown)}
            with pseudo_words(base, words):
                drawn = base.sample([Condition(w) for w in words], self._seeds(request)[:shown], request.sampler)
            yield "images", np.asarray(drawn)
