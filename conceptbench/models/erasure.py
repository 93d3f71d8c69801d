"""The checkpoint that an eraser yields: tagged changes of weights, a runtime, artefacts; applied to a base and taken off again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from conceptbench.core.errors import StoreError, UserInputError, unknown_name
from conceptbench.core.files import atomic_path, canonical_json, key_of
from conceptbench.core.registry import RUNTIMES, source_hash
from conceptbench.models.base import Base
from conceptbench.models.families import hash_tensors
from conceptbench.models.runtime import Runtime

ChangeKind = Literal["additive", "low-rank", "replacement", "mask"]
TEXT_COMPONENTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Change:
    """One tagged change of one component.

    Attributes:
        component: e.g. ``unet`` or ``text_encoder``.
        kind: ``additive``: W + D; ``low-rank``: W + B A (tensors ``name::A`` (r, in...) and ``name::B`` (out, r));
            ``replacement``: D instead of W; ``mask``: W * D.
        tensors: by parameter name; float32.
        concept: the concept that it erases, if it can be taken back alone; None for all together.
    """

    component: str
    kind: ChangeKind
    tensors: dict[str, Tensor]
    concept: str | None = None

    def value(self, name: str, weight: Tensor) -> Tensor:
        """The changed value of one parameter, computed in float32 and cast to the weight's dtype."""
        w = weight.float()
        if self.kind == "low-rank":
            w = w + (self.tensors[f"{name}::B"].to(w) @ self.tensors[f"{name}::A"].to(w).flatten(1)).view_as(w)
        else:
            d = self.tensors[name].to(w)
            w = w + d if self.kind == "additive" else w * d if self.kind == "mask" else d
        return w.to(weight.dtype)

    def fits(self, name: str, weight: Tensor) -> bool:
        """Whether the tensors have the shapes that the weight asks for."""
        if self.kind == "low-rank":
            if not {f"{name}::A", f"{name}::B"} <= self.tensors.keys():
                return False
            a, b = self.tensors[f"{name}::A"].flatten(1), self.tensors[f"{name}::B"]
            return b.shape == (weight.shape[0], a.shape[0]) and a.shape[1] == weight[0].numel()
        return self.tensors[name].shape == weight.shape

    def names(self) -> list[str]:
        """The parameters that it changes."""
        return list(dict.fromkeys(n.split("::")[0] for n in self.tensors))


@dataclass(frozen=True)
class RuntimeSpec:
    """A runtime as data: its registered name and options."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Erasure:
    """What an eraser yields.

    Attributes:
        changes: applied in order; later ones see the earlier ones' result.
        runtime: what to do while sampling.
        artefacts: public tensors, e.g. inverted tokens.
        hidden: tensors that leave the store with no export, e.g. KPOP's prompt.
        meta: base hash, eraser, config, seeds, curve, cost.
        recovery: the runtime that brings targets back with what is hidden (KPOP's prompt); it leaves the store with no export.
    """

    changes: list[Change] = field(default_factory=list)
    runtime: RuntimeSpec | None = None
    artefacts: dict[str, Tensor] = field(default_factory=dict)
    hidden: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    recovery: RuntimeSpec | None = None

    @classmethod
    def additive(cls, before: dict[str, Tensor], after: dict[str, Tensor], component: str = "unet", concept: str | None = None) -> Erasure:
        """The difference of two sets of values; tensors that did not change are left out."""
        deltas = {n: (after[n].detach().float() - before[n].detach().float()).cpu() for n in after}
        return cls([Change(component, "additive", {n: d for n, d in deltas.items() if bool(d.any())}, concept)])

    def concepts(self) -> list[str]:
        """Concepts that can be applied or left out one by one."""
        return list(dict.fromkeys(c.concept for c in self.changes if c.concept is not None))

    def part(self, concepts: Sequence[str] | None) -> Erasure:
        """The erasure with only some concepts' changes; None for all. Changes that belong to no concept stay.

        Raises:
            UserInputError: it has no part for one of the concepts.
        """
        if concepts is None:
            return self
        for concept in concepts:
            if concept not in self.concepts():
                raise unknown_name("concept of this erasure", concept, self.concepts())
        return replace(self, changes=[c for c in self.changes if c.concept is None or c.concept in concepts])

    def restoring(self, concepts: Sequence[str], key: str = "") -> Erasure:
        """The erasure with some targets brought back: without their parts, or with the runtime that recovers them.

        Args:
            concepts: targets.
            key: of a recovery: whose hidden artefact; empty for each one's own, ``random`` for one of the same norm.

        Raises:
            UserInputError: it has neither a part nor a recovery for one of them.
        """
        if not concepts:
            return self
        if self.recovery is not None:
            return replace(self, runtime=replace(self.recovery, config={**self.recovery.config, "concepts": list(concepts), "key": key}))
        if key:
            raise UserInputError(f"nothing hidden brings {', '.join(concepts)} back: its part is left out, which needs no key", "leave out restore_with")
        gone = self.part(concepts).concepts()  # an error for those that it has no part for
        return self.part([c for c in self.concepts() if c not in gone])

    def weights_hash(self) -> str:
        """The hash of all that shapes images: changes, runtime and artefacts; not the recipe and not the cost."""
        parts = [[c.component, c.kind, c.concept, hash_tensors(c.tensors)] for c in self.changes]
        runtime = None if self.runtime is None else [self.runtime.name, self.runtime.config, source_hash([RUNTIMES.load(self.runtime.name)])]
        return key_of({"changes": parts, "runtime": runtime, "artefacts": hash_tensors(self.artefacts), "hidden": hash_tensors(self.hidden)})

    def size_bytes(self) -> int:
        """Bytes of the changed tensors."""
        return sum(t.nbytes for c in self.changes for t in c.tensors.values())

    def check(self, base: Base) -> None:
        """Refuses an erasure that does not fit a base, without applying it.

        Raises:
            UserInputError: the first parameter that the base has not, or has in another shape.
        """
        for change in self.changes:
            _parameters_of(base, change)

    @contextmanager
    def applied(self, base: Base, concepts: Sequence[str] | None = None) -> Iterator[Base]:
        """The base with the erasure, restored bit for bit on leaving.

        Args:
            base: it is changed in place.
            concepts: apply only these concepts' changes; None for all.
        """
        chosen = self.part(concepts).changes
        touches_text = any(c.component in TEXT_COMPONENTS for c in chosen)
        old: dict[tuple[str, str], tuple[torch.nn.Parameter, Tensor]] = {}
        old_runtime = base.runtime
        attached = ExitStack()
        try:
            if touches_text:
                base.forget_encoded()
            for change in chosen:
                for name, parameter in _parameters_of(base, change).items():
                    old.setdefault((change.component, name), (parameter, parameter.data))
                    parameter.data = change.value(name, parameter.data)
            if self.runtime is not None:
                kind: type[Runtime] = RUNTIMES.load(self.runtime.name)
                base.runtime = kind(self.runtime.config, {**self.artefacts, **self.hidden})
                attached.enter_context(base.runtime.attached(base))
            yield base
        finally:
            try:
                attached.close()
            finally:  # whatever a runtime does on leaving, the weights are put back
                for parameter, data in old.values():
                    parameter.data = data
                base.runtime = old_runtime
                if touches_text:
                    base.forget_encoded()

    # -- files -------------------------------------------------------------------------------------------------------
    def save(self, path: Path) -> None:
        """Writes one safetensors file: tensors, and everything else as JSON in its header."""
        tensors: dict[str, Tensor] = {}
        for i, change in enumerate(self.changes):
            tensors.update({f"change/{i}/{n}": t.detach().cpu().contiguous().clone() for n, t in change.tensors.items()})
        tensors.update({f"artefact/{n}": t.detach().cpu().contiguous().clone() for n, t in self.artefacts.items()})
        tensors.update({f"hidden/{n}": t.detach().cpu().contiguous().clone() for n, t in self.hidden.items()})
        header = {
            "format": "conceptbench-erasure-1",
            "changes": [{"component": c.component, "kind": c.kind, "concept": c.concept} for c in self.changes],
            "runtime": _as_data(self.runtime),
            "recovery": _as_data(self.recovery),
            "meta": self.meta,
        }
        metadata = {"conceptbench": canonical_json(header), "sha256": _checksum(tensors, header)}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> Erasure:
        """Reads what :meth:`save` wrote.

        Raises:
            StoreError: the file is damaged or no erasure.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                header = json.loads(metadata["conceptbench"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
            if metadata["sha256"] != _checksum(tensors, header):
                raise ValueError("its checksum does not match its content")

            def under(prefix: str) -> dict[str, Tensor]:
                return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

            changes = [Change(c["component"], c["kind"], under(f"change/{i}/"), c["concept"]) for i, c in enumerate(header["changes"])]
            runtime, recovery = (RuntimeSpec(**header[n]) if header.get(n) else None for n in ("runtime", "recovery"))
            return cls(changes, runtime, under("artefact/"), under("hidden/"), dict(header["meta"]), recovery)
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            raise StoreError(f"{path} is not a readable erasure: {error}", "delete it; the next run makes it again") from error


def _as_data(runtime: RuntimeSpec | None) -> dict[str, Any] | None:
    return None if runtime is None else {"name": runtime.name, "config": runtime.config}


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Of everything in a file."""
    return key_of({"tensors": hash_tensors(dict(tensors)), "header": header})


def _parameters_of(base: Base, change: Change) -> dict[str, torch.nn.Parameter]:
    """The parameters that a change touches; an error names the first that the base does not have."""
    modules = base.modules()
    if change.component not in modules:
        raise UserInputError(f"the erasure changes {change.component!r}, which this base has not", f"it has: {', '.join(modules)}")
    parameters = dict(modules[change.component].named_parameters())
    for name in change.names():
        if name not in parameters:
            raise UserInputError(f"the erasure changes {change.component}.{name}, which this base has not", "it was made for another base")
        if not change.fits(name, parameters[name]):
            raise UserInputError(f"the erasure's {change.kind} change of {change.component}.{name} does not fit its shape {tuple(parameters[name].shape)}")
    return {name: parameters[name] for name in change.names()}


def values_of(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the parameters' values, detached."""
    return {n: p.detach().clone() for n, p in parameters.items()}


def values_by_name(base: Base, erasure: Erasure) -> dict[str, Tensor]:
    """The values, as they are now, of all parameters of the denoiser and of each component that the erasure changes; not copied."""
    modules = base.modules()
    components = dict.fromkeys([base.component, *(c.component for c in erasure.changes)])
    return {f"{c}.{n}": p.data for c in components for n, p in modules[c].named_parameters()}


def as_arrays(values: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """Tensors as float32 arrays; those that are float32 on the CPU are shared, not copied."""
    return {n: t.detach().float().cpu().numpy() for n, t in values.items()}
