"""SepME, the separable multi-concept eraser (Zhao et al. 2024): one change a target, which leaves the other targets' own texts alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from conceptbench.core.schemas import Concept
from conceptbench.erasers.gcirs import GCiRs, GCiRsConfig
from conceptbench.erasers.shared.correlation import ConceptImages, CorrelationConfig, Stop, correlations, l1_per_layer, representation
from conceptbench.erasers.shared.loop import Terms, train
from conceptbench.erasers.shared.null_space import NullSpace, protecting
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Change, Erasure


class SepMEConfig(CorrelationConfig):
    """Options.

    Attributes:
        parameters: K and V only: other layers see the image, and no direction there belongs to a prompt.
        beta: scale of the basis (eq. 10); a step of Adam moves a weight by about ``lr * beta``.
        protect: what stays as it is: ``none``: the empty prompt and the other targets' texts; ``retained``: the retained concepts' too.
            A concept's texts are its phrases in ``texts`` templates each, so by default the bare phrases, and nothing else is protected:
            "a painting in the style of X" has other states than "X".
        penalise: what lambda holds small: the coefficients ``w`` (eq. 11), or the ``change`` of the weights (released code).
        first: a target with no others before it is erased by ``sepme``, or by ``gcirs`` on all of cross-attention, as the paper does when
            targets come one after another; that part protects nothing.
        first_options: of G-CiRs then, all of them: nothing is taken over from the options here.
    """

    parameters: Literal["kv"] = "kv"
    lr: float = Field(default=1e-2, gt=0)
    beta: float = Field(default=1e-4, gt=0)
    protect: Literal["none", "retained"] = "none"
    penalise: Literal["w", "change"] = "w"
    first: Literal["sepme", "gcirs"] = "sepme"
    first_options: GCiRsConfig = GCiRsConfig(lr=1e-6)


class SepME(Eraser[SepMEConfig]):
    """dW_i = w_i (beta S_i)^T on keys and values; the loss of G-CiRs trains w_i.

    S_i spans what is orthogonal to the states of the empty prompt and of the other targets' texts. So these texts, exactly as they are
    written, give the same images with and without dW_i; other prompts about the same concepts do not, and have no guarantee.

    One after another, each target's change is trained from the unmodified base, and heeds the targets before it (sec. 4.2.2, app. D.2).
    """

    name = "sepme"
    summary = "one change of keys and values for each target, in the null space of the other targets' own texts"
    reference = "Zhao et al. 2024, arXiv:2402.05947"
    Config: ClassVar[type[EraserConfig]] = SepMEConfig
    variants = MappingProxyType({"": {}, "retained": {"protect": "retained"}})
    supports = Supports(iterative=True, independent=True, heeds_others=True, restore=True)
    uses = (GCiRs,)

    @classmethod
    def load(cls, config: SepMEConfig, targets: int) -> Load:
        """At most so many steps of one row an image; the frozen model has two, and its answer to the empty prompt is everyone's.

        Of one target it is not known here whether it is the first: it is counted as if it were.
        """
        if config.first == "gcirs" and targets == 1:
            return GCiRs.load(config.first_options, 1)
        rows = config.steps * config.batch * targets
        return Load(2 * rows, rows, config.batch * targets, config.parameters, images=targets * config.images)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: SepMEConfig) -> None:
        """Every target has its threshold, and its null space a dimension."""
        if _is_first(request, config):
            GCiRs.check(base, request, config.first_options)
            return
        config.thresholds(request.targets)
        for target in request.targets:
            protecting(base, target.name, _others(target, request, config))

    def erase(self, base: Base, request: EraseRequest, config: SepMEConfig, ctx: Context) -> Erasure:
        """Trains the targets' changes side by side; none of them sees the others'."""
        if _is_first(request, config):
            made = GCiRs().erase(base, request, config.first_options, ctx)
            return replace(made, changes=[replace(c, concept=request.targets[0].name) for c in made.changes])
        names = [c.name for c in request.targets]
        texts = {c.name: _others(c, request, config) for c in request.targets}
        spaces = _null_spaces(base, texts, ctx)
        bases = {name: (config.beta * space.basis).to(base.device, torch.float32) for name, space in spaces.items()}
        layers = base.parameters(config.parameters)
        w = {f"{c}/{n}": torch.zeros(len(p), bases[c].shape[1], device=base.device, requires_grad=True) for c in names for n, p in layers.items()}
        images = ConceptImages.of(base, ctx, request.targets, config)
        stop = Stop(request.targets, config)
        still: dict[str, Tensor] = {}

        def changes(concepts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
            """Each layer's dW of each concept."""
            return {n: {c: w[f"{c}/{n}"] @ bases[c].T for c in concepts} for n in layers}

        def loss(step: int) -> Terms:
            chosen = stop.open()
            x_t, t, prompts = images.draw(base, chosen, config.batch, ctx.generator)
            with torch.no_grad():
                original, uncond = representation(base, x_t, t, prompts)
            change = changes([names[i] for i in chosen])
            with _added(base, {n: _sum(own) for n, own in change.items()}):
                unlearned = base.predict(x_t, t, base.encode(prompts).to(base.device, base.dtype)) - uncond  # no change moves the empty prompt
            losses, norms = correlations(original, unlearned, len(chosen), config.correlation)
            total, moving = stop.take(step, losses, norms)
            # what is done stays as it is, also if gradients add up
            still.update({f"{c}/{n}": w[f"{c}/{n}"].detach().clone() for i, c in enumerate(names) if i not in moving for n in layers})
            active = [names[i] for i in moving or chosen]
            held = [l1_per_layer([w[f"{c}/{n}"] if config.penalise == "w" else change[n][c] for n in layers]) for c in active]
            return Terms(total + config.l1 * torch.stack(held).sum(), {"correlation": losses.mean(), **stop.parts()})

        def after(_step: int, _terms: Terms) -> bool:
            for name, value in still.items():
                w[name].data.copy_(value)
            return not stop.open()

        @torch.no_grad()
        def showing() -> AbstractContextManager[None]:
            # weights, not hooks: a denoiser that is compiled for drawing calls none
            return base.swapped({n: (layers[n].float() + _sum(own)).to(layers[n].dtype) for n, own in changes(names).items()})

        trained = train(w, loss, config, ctx, state=stop.state, after=after, showing=showing)
        made_of = [_change(c, {n: trained[f"{c}/{n}"] for n in layers}, config.beta * spaces[c].basis) for c in names]
        facts = {c: {"texts": texts[c], "rank": s.rank, "free": s.basis.shape[1], "residual": s.residual} for c, s in spaces.items()}
        return Erasure(made_of, meta={"null_spaces": facts})


def _is_first(request: EraseRequest, config: SepMEConfig) -> bool:
    """Whether G-CiRs makes this part."""
    return config.first == "gcirs" and len(request.targets) == 1 and not request.others


def _null_spaces(base: Base, texts: Mapping[str, Sequence[str]], ctx: Context) -> dict[str, NullSpace]:
    """Each target's null space, kept for a training that goes on: saved coefficients mean nothing in another basis of the same span."""

    def make() -> dict[str, Tensor]:
        found = {c: protecting(base, c, own) for c, own in texts.items()}
        residuals = {f"residual/{c}": torch.tensor(s.residual, dtype=torch.float64) for c, s in found.items()}
        return {**{f"basis/{c}": s.basis for c, s in found.items()}, **residuals}

    kept = ctx.once("null-spaces", make)
    return {c: NullSpace(kept[f"basis/{c}"], float(kept[f"residual/{c}"])) for c in texts}


def _others(target: Concept, request: EraseRequest, config: SepMEConfig) -> list[str]:
    """The texts that the target's change is to leave alone."""
    kept = request.retained if config.protect == "retained" else ()
    own = target.texts(config.texts)
    concepts = [c for c in (*request.targets, *request.others, *kept) if c.name != target.name]
    return [t for t in dict.fromkeys(t for c in concepts for t in c.texts(config.texts)) if t not in own]


def _sum(changes: Mapping[str, Tensor]) -> Tensor:
    """What the concepts' changes of one layer add up to."""
    return torch.stack(list(changes.values())).sum(0)


@contextmanager
def _added(base: Base, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """The denoiser with W + dW in linear layers, differentiable with respect to dW."""

    def answer(change: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda _module, inputs, output: output + functional.linear(inputs[0], change.to(inputs[0].dtype))

    handles = [base.network.get_submodule(n.removesuffix(".weight")).register_forward_hook(answer(d)) for n, d in changes.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _change(concept: str, w: Mapping[str, Tensor], basis: Tensor) -> Change:
    """The change that trained coefficients make, computed in float64; also an empty one, so that the target has its part."""
    dense = {n: (v.cpu().double() @ basis.cpu().T).float() for n, v in w.items()}
    return Change("unet", "additive", {n: d for n, d in dense.items() if bool(d.any())}, concept)
