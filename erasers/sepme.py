"""SepME, the separable multi-concept eraser (Zhao et al. 2024): one change a target, which leaves the other targets' prompts alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from conceptbench.core.schemas import Concept
from conceptbench.erasers.gcirs import GCiRs, GCiRsConfig
from conceptbench.erasers.shared.correlation import ConceptImages, CorrelationConfig, Momentum, balanced, correlations, l1_per_layer, representation
from conceptbench.erasers.shared.loop import Terms, train
from conceptbench.erasers.shared.null_space import protecting
from conceptbench.models.base import Base
from conceptbench.models.eraser import Context, Eraser, EraserConfig, EraseRequest, Load, Supports
from conceptbench.models.erasure import Change, Erasure


class SepMEConfig(CorrelationConfig):
    """Options.

    Attributes:
        parameters: K and V only: other layers see the image, and no direction there belongs to a prompt.
        beta: scale of the basis (eq. 10); a step of Adam moves a weight by about ``lr * beta``.
        protect: ``none``: the empty prompt and the other targets' prompts stay as they are; ``retained``: the retained concepts' too.
        penalise: what lambda holds small: the coefficients ``w`` (eq. 11), or the ``change`` of the weights (released code).
        first: a target with no others before it is erased by ``sepme``, or by ``gcirs`` on all of cross-attention at the rate
            ``lr * beta``, as the paper does when targets come one after another; that part does not protect the empty prompt.
    """

    parameters: Literal["kv"] = "kv"
    lr: float = Field(default=1e-2, gt=0)
    beta: float = Field(default=1e-4, gt=0)
    protect: Literal["none", "retained"] = "none"
    penalise: Literal["w", "change"] = "w"
    first: Literal["sepme", "gcirs"] = "sepme"


class SepME(Eraser[SepMEConfig]):
    """dW_i = w_i (beta S_i)^T on keys and values, S_i the null space of the empty and the other targets' prompts; the loss of G-CiRs trains w_i."""

    name = "sepme"
    summary = "one change of keys and values for each target, in the null space of the other targets' prompts"
    reference = "Zhao et al. 2024, arXiv:2402.05947"
    Config: ClassVar[type[EraserConfig]] = SepMEConfig
    variants = MappingProxyType({"": {}, "retained": {"protect": "retained"}})
    supports = Supports(iterative=True, restore=True)
    uses = (GCiRs,)

    @classmethod
    def load(cls, config: SepMEConfig, targets: int) -> Load:
        """At most so many steps of one row an image; the frozen model has two, and its answer to the empty prompt is everyone's."""
        rows = config.steps * config.batch * targets
        return Load(2 * rows, rows, config.batch * targets, config.parameters)

    @classmethod
    def check(cls, base: Base, request: EraseRequest, config: SepMEConfig) -> None:
        """Every target has its threshold, and its null space a dimension."""
        config.thresholds(request.targets)
        for target in request.targets:
            protecting(base, target.name, _others(target, request, config))

    def erase(self, base: Base, request: EraseRequest, config: SepMEConfig, ctx: Context) -> Erasure:
        """Trains the targets' changes side by side; none of them sees the others'."""
        if config.first == "gcirs" and len(request.targets) == 1 and not request.others:
            return self._first(base, request, config, ctx)
        names = [c.name for c in request.targets]
        texts = {c.name: _others(c, request, config) for c in request.targets}
        spaces = {name: protecting(base, name, texts[name]) for name in names}
        bases = {name: (config.beta * space.basis).to(base.device, torch.float32) for name, space in spaces.items()}
        layers = base.parameters(config.parameters)
        w = {f"{c}/{n}": torch.zeros(len(p), bases[c].shape[1], device=base.device, requires_grad=True) for c in names for n, p in layers.items()}
        images = ConceptImages.of(base, ctx, request.targets, config)
        momentum = Momentum(config.thresholds(request.targets), config)
        still: dict[str, Tensor] = {}

        def loss(step: int) -> Terms:
            chosen = momentum.open()
            active = [names[i] for i in chosen]
            x_t, t, prompts = images.draw(base, chosen, config.batch, ctx.generator)
            with torch.no_grad():
                original, uncond = representation(base, x_t, t, prompts)
            change = {f"{c}/{n}": w[f"{c}/{n}"] @ bases[c].T for c in active for n in layers}
            with _added(base, {n: torch.stack([change[f"{c}/{n}"] for c in active]).sum(0) for n in layers}):
                unlearned = base.predict(x_t, t, base.encode(prompts).to(base.device, base.dtype)) - uncond  # no change moves the empty prompt
            losses, norms = correlations(original, unlearned, len(chosen), config.correlation)
            momentum.update(step, losses)
            # what is done stays as it is, also if gradients add up; the step that ends it counts with ``after`` only
            moving = active if config.check == "after" else [names[i] for i in momentum.open()]
            still.update({f"{c}/{n}": w[f"{c}/{n}"].detach().clone() for c in names if c not in moving for n in layers})
            held = [l1_per_layer([(w if config.penalise == "w" else change)[f"{c}/{n}"] for n in layers]) for c in active]
            total = balanced(losses, norms, config.balance).sum() + config.l1 * torch.stack(held).sum()
            return Terms(total, {"correlation": losses.mean(), **momentum.parts(names)})

        def after(_step: int, _terms: Terms) -> bool:
            for name, value in still.items():
                w[name].data.copy_(value)
            return not momentum.open()

        trained = train(w, loss, config, ctx, state=momentum.state, after=after)
        changes = [_change(c, {n: trained[f"{c}/{n}"] for n in layers}, config.beta * spaces[c].basis) for c in names]
        facts = {c: {"texts": texts[c], "rank": s.rank, "free": s.basis.shape[1], "residual": s.residual} for c, s in spaces.items()}
        return Erasure([c for c in changes if c.tensors], meta={"null_spaces": facts})

    def _first(self, base: Base, request: EraseRequest, config: SepMEConfig, ctx: Context) -> Erasure:
        """G-CiRs on all of cross-attention, as the target's part."""
        shared = {name: getattr(config, name) for name in CorrelationConfig.model_fields}
        own = GCiRsConfig.model_validate({**shared, "parameters": "xattn", "lr": config.lr * config.beta})
        made = GCiRs().erase(base, request, own, ctx)
        return replace(made, changes=[replace(c, concept=request.targets[0].name) for c in made.changes])


def _others(target: Concept, request: EraseRequest, config: SepMEConfig) -> list[str]:
    """The prompts that the target's change is to leave alone."""
    kept = request.retained if config.protect == "retained" else ()
    own = target.texts(config.texts)
    concepts = [c for c in (*request.targets, *request.others, *kept) if c.name != target.name]
    return [t for t in dict.fromkeys(t for c in concepts for t in c.texts(config.texts)) if t not in own]


@contextmanager
def _added(base: Base, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """The denoiser with W + dW in linear layers, differentiable with respect to dW."""

    def answer(change: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda _module, inputs, output: output + functional.linear(inputs[0], change.to(inputs[0].dtype))

    handles = [base.unet.get_submodule(n.removesuffix(".weight")).register_forward_hook(answer(d)) for n, d in changes.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _change(concept: str, w: Mapping[str, Tensor], basis: Tensor) -> Change:
    """The change that trained coefficients make, computed in float64."""
    dense = {n: (v.cpu().double() @ basis.cpu().T).float() for n, v in w.items()}
    return Change("unet", "additive", {n: d for n, d in dense.items() if bool(d.any())}, concept)
