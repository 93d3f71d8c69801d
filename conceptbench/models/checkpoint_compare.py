"""Compares a checkpoint's tensors with a base's network: what fits, what is finite, what changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base
from conceptbench.models.checkpoint_folders import OTHER_BASE, Part
from conceptbench.models.erasure import Change
from conceptbench.models.ldm import UNET_PREFIXES, unet_names
from conceptbench.models.weight_files import some

# the VAE's attention in files of 2022
DEPRECATED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
BUFFERS = re.compile(r"(^|\.)position_ids$")


@dataclass
class Found:
    """What was read so far.

    Attributes:
        form: of the source, for the record.
        changes: of the base.
        files: name -> sha256.
        counts: tensors ``read``, ``changed`` and ``rounded`` (unchanged but for half precision).
        dtypes: of the file's tensors.
        ignored: names that were not read.
        notes: what a reader of the results should know.
    """

    form: str = ""
    changes: list[Change] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"read": 0, "changed": 0, "rounded": 0})
    dtypes: set[str] = field(default_factory=set)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(part: Part, base: Base, found: Found, *, complete: bool = False) -> None:
    """Adds the replacement of what differs between a network's tensors and the base's.

    Raises:
        UserInputError: the tensors are of another architecture, not finite, or, if ``complete``, some of the base's are missing.
    """
    module = base.modules()[part.component]
    parameters = dict(module.named_parameters())
    named = renamed(part.component, part.tensors, module)
    if len(named) != len(part.tensors):
        raise UserInputError(
            f"{part.source} has {len(part.tensors) - len(named)} tensors of its {part.component} twice, under two names", "save it again, each once"
        )
    tensors = {n: t for n, t in named.items() if n in parameters or not BUFFERS.search(n)}
    _check_architecture(tensors, parameters, part, module, complete=complete)
    changed: dict[str, Tensor] = {}
    before = dict(found.counts)
    for name, tensor in tensors.items():
        found.dtypes.add(dtype_name(tensor))
        check_finite(f"{part.component}.{name}", tensor)
        weight = parameters[name].detach().cpu().to(torch.float32)
        value = tensor.reshape(weight.shape).to("cpu", torch.float32, copy=True)  # a copy: the file may be mapped into memory
        found.counts["read"] += 1
        if _same(value, weight):
            continue
        if _same(value, weight, tensor.dtype) or _same(weight, value, parameters[name].dtype):
            found.counts["rounded"] += 1
        else:
            changed[name] = value
    found.counts["changed"] += len(changed)
    rounded = found.counts["rounded"] - before["rounded"]
    if rounded:
        found.notes.append(f"{part.component}: {rounded} tensors equal the base's up to rounding to half precision, and count as unchanged")
    if changed:
        found.changes.append(Change(part.component, "replacement", changed))


def _same(value: Tensor, weight: Tensor, precision: torch.dtype = torch.float32) -> bool:
    """Whether float32 values are, bit for bit (0 is not -0), those of a weight rounded to a precision."""
    rounded = weight if precision == torch.float32 else weight.to(precision).to(torch.float32)
    return torch.equal(value.view(torch.int32), rounded.view(torch.int32))


def _check_architecture(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], part: Part, module: nn.Module, *, complete: bool) -> None:
    if not any(n in parameters for n in tensors):
        raise nothing_in_common(tensors, part.source, module, part.component)
    strange = [n for n in tensors if n not in parameters]
    wrong = [n for n in tensors if n in parameters and not fits(tensors[n], parameters[n])]
    where = f"{part.source} is of another architecture than the base's {part.component}"
    if wrong:
        first = f"{wrong[0]} is {tuple(tensors[wrong[0]].shape)} in the file and {tuple(parameters[wrong[0]].shape)} in the base"
        raise UserInputError(f"{where}: {first}; {len(wrong) + len(strange)} of {len(tensors)} tensors do not fit", OTHER_BASE)
    if strange:
        raise UserInputError(f"{where}: it has {len(strange)} of {len(tensors)} tensors that the base has not: {some(strange)}", OTHER_BASE)
    missing = [n for n in parameters if n not in tensors]
    if complete and missing:
        raise UserInputError(f"{where}: it lacks {len(missing)} of the base's {len(parameters)} tensors: {some(missing)}", OTHER_BASE)


def nothing_in_common(tensors: Mapping[str, Tensor], source: str, module: nn.Module, component: str) -> UserInputError:
    """The error for a file that has none of the names of the base; shows a few of each."""
    own = [n for n, _ in module.named_parameters()]
    return UserInputError(f"{source} has no tensor in common with the base; it has: {some(tensors)}", f"the base's {component} has: {some(own)}")


def fits(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether the shapes agree; a 1x1 convolution and a linear layer are one thing (the original format swaps them)."""

    def plain(shape: tuple[int, ...]) -> tuple[int, ...]:
        while len(shape) > 2 and shape[-1] == 1:
            shape = shape[:-1]
        return shape

    return plain(tuple(tensor.shape)) == plain(tuple(parameter.shape))


def dtype_name(tensor: Tensor) -> str:
    """A dtype as people write it: float16."""
    return str(tensor.dtype).removeprefix("torch.")


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuses a tensor that is not made of finite plain numbers, by name."""
    if tensor.is_meta or tensor.layout != torch.strided or not (tensor.is_floating_point() or (tensor.dim() == 0 and not tensor.is_quantized)):
        raise UserInputError(
            f"{name} is stored as {dtype_name(tensor)} ({tensor.layout}), not as plain numbers", "give weights in float32, float16 or bfloat16"
        )
    bad = int((~torch.isfinite(tensor.to(torch.float32))).sum())
    if bad:
        raise UserInputError(f"{name} is not finite: {bad} of {tensor.numel()} values are NaN or infinite", "its training diverged; take an earlier checkpoint")


def renamed(component: str, tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The tensors by the names that the base's network uses; unknown names stay."""
    parameters = dict(module.named_parameters())
    original = unet_names(module) if component == "unet" else {}

    def own(name: str) -> str:
        candidates = [name, name.removeprefix("text_model."), f"text_model.{name}"]
        for prefix in ("", *UNET_PREFIXES):
            candidates.append(original.get(name.removeprefix(prefix), name))
        older = name
        for old, new in DEPRECATED.items():
            older = older.replace(old, new)
        return next((c for c in [*candidates, older] if c in parameters), name)

    return {own(n): t for n, t in tensors.items()}
