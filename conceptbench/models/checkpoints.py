"""Checkpoints made elsewhere, as erasures of a base: what is in them is told from their content, never from their name.

Weights enter as ``replacement``: base + (w - base) is not w in floating point, and a replacement gives the checkpoint's weights
bit for bit in float32 whatever the base's dtype is (:func:`conceptbench.models.combine.as_additive` turns it into a difference).
LoRAs enter as ``low-rank``. Only tensors that differ from the base are kept; a tensor of a half-precision file is unchanged if
it equals the base's value rounded to that precision, because rounding to store is no erasure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from conceptbench.core.errors import StoreError, UserInputError, nearest
from conceptbench.core.files import sha256_file
from conceptbench.core.registry import RUNTIMES
from conceptbench.models.base import Base
from conceptbench.models.checkpoint_compare import Found, check_finite, compare, dtype_name, fits, nothing_in_common, renamed
from conceptbench.models.checkpoint_folders import OTHER_BASE, Part, adapter_of, component_of_config, pipeline_parts, weight_files
from conceptbench.models.erasure import ChangeKind, Erasure
from conceptbench.models.ldm import from_original, is_original
from conceptbench.models.lora import adapter_config, is_lora, lora_changes
from conceptbench.models.weight_files import COMPONENTS, WeightFile, read_weights, some


def load_checkpoint(path: Path, base: Base) -> Erasure:
    """A checkpoint as an erasure of a base; nothing in it is ever run, and nothing is fetched.

    Args:
        path: a diffusers folder (a pipeline or one network), a UNet's whole or partial state dict (diffusers or original names), a whole
            original Stable Diffusion, a LoRA (diffusers, peft or kohya), or an erasure of ours; files are safetensors or torch.save's.
        base: what the checkpoint was made from. It is not changed.

    Returns:
        The erasure. ``meta["checkpoint"]`` has form, file, sha256, tensors read / changed / rounded, dtypes, ignored names and notes;
        ``meta["base"]`` the base's component hashes.

    Raises:
        UserInputError: there is no such file, it is damaged, has code in it, is of another architecture, or is not finite.
    """
    if not path.exists():
        raise missing_checkpoint(path)
    try:
        erasure, found = _from_folder(path, base) if path.is_dir() else _from_file(path, base)
    except OSError as error:
        raise UserInputError(f"cannot read {path}: {error.strerror or error}", "check the path and its permissions") from error
    erasure.meta["base"] = erasure.meta.get("base") or base.info.components
    erasure.meta["checkpoint"] = {
        "form": found.form,
        "file": path.resolve().name,
        "sha256": found.files,
        "base": base.info.components,
        "tensors": found.counts,
        "dtypes": sorted(found.dtypes),
        "ignored": {"count": len(found.ignored), "first": found.ignored[:10]},
        "notes": found.notes,
    }
    return erasure


def missing_checkpoint(path: Path) -> UserInputError:
    """The error for a path that is not there: with the nearest name in its folder."""
    parent = path.parent
    if not parent.is_dir():
        return UserInputError(f"no such checkpoint: {path}", f"there is no folder {parent} either")
    names = sorted(p.name for p in parent.iterdir() if not p.name.startswith("."))
    close = nearest(path.name, names)
    return UserInputError(f"no such checkpoint: {path}" + (f"; did you mean {str(parent / close)!r}?" if close else ""), f"{parent} has: {some(names, 8)}")


# -- files ---------------------------------------------------------------------------------------------------------------
def _from_file(path: Path, base: Base) -> tuple[Erasure, Found]:
    read = read_weights(path)
    found = Found(files={path.name: sha256_file(path)}, ignored=list(read.ignored))
    if "conceptbench" in read.metadata:
        return _own(path, base, found), found
    return _from_weights(read, str(path), base, found), found


def _own(path: Path, base: Base, found: Found) -> Erasure:
    """An erasure file of ours; it may come from anybody, so it is checked like the others."""
    try:
        erasure = Erasure.load(path)
    except StoreError as error:
        raise UserInputError(error.message, "export or download it again") from error
    for change in erasure.changes:
        if change.kind not in get_args(ChangeKind):
            raise UserInputError(f"{path}: unknown kind of change {change.kind!r}", f"known: {', '.join(get_args(ChangeKind))}")
        for name, tensor in change.tensors.items():
            check_finite(f"{change.component}.{name}", tensor)
            found.dtypes.add(dtype_name(tensor))
    erasure.check(base)
    if erasure.runtime is not None:
        RUNTIMES.load(erasure.runtime.name)
    theirs = erasure.meta.get("base")
    others = [c for c in base.modules() if isinstance(theirs, dict) and c in theirs and theirs[c] != base.info.components.get(c)]
    if others:
        found.notes.append(f"the erasure was made for another base: {', '.join(others)} differ")
    found.form, count = "erasure", sum(len(c.names()) for c in erasure.changes)
    found.counts.update(read=count, changed=count)
    return erasure


def _from_weights(read: WeightFile, source: str, base: Base, found: Found, config: Mapping[str, Any] | None = None) -> Erasure:
    """An erasure from the tensors of one file, in whatever form they are."""
    tensors = {_bare(k): t for k, t in read.tensors.items()}
    if is_lora(tensors):
        for name, tensor in tensors.items():
            check_finite(name, tensor)
        changes = lora_changes(tensors, config or adapter_config(read.metadata), base)
        found.form, found.dtypes = "lora", {dtype_name(t) for t in tensors.values()}
        found.counts.update(read=len(tensors), changed=sum(len(c.names()) for c in changes))
        return Erasure(changes)
    original = any(is_original(k) for k in tensors)
    if original:
        try:
            parts, rest = from_original(tensors, base)
        except (KeyError, AttributeError, IndexError) as error:
            raise UserInputError(f"{source}: the original names could not be translated for this base: {error!r}", OTHER_BASE) from error
        found.ignored.extend(rest)
        if any(k.startswith("model_ema.") for k in rest):
            found.notes.append("the file also has averaged (EMA) weights; the plain ones were taken")
    else:
        parts = _by_component(tensors, source, base)
    whole = original and len(parts) > 1
    found.form = "original checkpoint" if whole else "original UNet state dict" if original else "state dict"
    for component, part in parts.items():
        compare(Part(component, part, source), base, found)
    return Erasure(found.changes)


def _bare(name: str) -> str:
    """A name without the prefixes of wrapped modules (DataParallel, torch.compile)."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", name)


def _by_component(tensors: dict[str, Tensor], source: str, base: Base) -> dict[str, dict[str, Tensor]]:
    """Sorts a state dict's tensors by their prefix; those without one belong to the network that knows most of them."""
    parts: dict[str, dict[str, Tensor]] = {}
    bare: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix in COMPONENTS:
            parts.setdefault(prefix, {})[rest] = tensor
        else:
            bare[name] = tensor
    for component in parts:
        if component not in base.modules():
            raise UserInputError(f"{source} has a {component}, which the base {base.info.id} (family {base.info.family}) has not", OTHER_BASE)
    if not bare:
        return parts
    scores = {c: _score(c, bare, m) for c, m in base.modules().items()}
    best = max(scores, key=lambda c: scores[c])
    rivals = [c for c in scores if scores[c] == scores[best]]
    if scores[best] == (0, 0):
        raise nothing_in_common(bare, source, base.modules()["unet"], "unet")
    if len(rivals) > 1:
        raise UserInputError(f"the tensors of {source} could be those of {' or '.join(rivals)}", f"put the component in front of the names: {rivals[0]}.NAME")
    parts.setdefault(best, {}).update(bare)
    return parts


def _score(component: str, tensors: dict[str, Tensor], module: nn.Module) -> tuple[int, int]:
    """How many tensors a network knows by name, and how many of these fit."""
    parameters = dict(module.named_parameters())
    named = renamed(component, tensors, module)
    return sum(n in parameters for n in named), sum(n in parameters and fits(t, parameters[n]) for n, t in named.items())


# -- folders -------------------------------------------------------------------------------------------------------------
def _from_folder(path: Path, base: Base) -> tuple[Erasure, Found]:
    found = Found()
    parts = pipeline_parts(path, base)
    if parts is not None:
        found.form = "diffusers pipeline"
        for component, files in parts.items():
            compare(_joined(component, files, path, found), base, found, complete=True)
        return Erasure(found.changes), found
    files = weight_files(path)
    found.files = {f.name: sha256_file(f) for f in files}
    network = component_of_config(path, base)
    if network is not None:
        found.form = f"diffusers {network} folder"
        compare(_joined(network, files, path, found), base, found, complete=True)
        return Erasure(found.changes), found
    if len(files) == 1 and (read := read_weights(files[0])).metadata.get("conceptbench"):
        return _own(files[0], base, found), found
    joined = WeightFile({}, {})
    for file in files:
        read = read_weights(file)
        joined.tensors.update(read.tensors)
        joined.metadata.update(read.metadata)
        found.ignored.extend(read.ignored)
    return _from_weights(joined, str(path), base, found, adapter_of(path)), found


def _joined(component: str, files: list[Path], root: Path, found: Found) -> Part:
    """The tensors of one network's file or shards."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        read = read_weights(file)
        tensors.update(read.tensors)
        found.ignored.extend(read.ignored)
        found.files[file.relative_to(root).as_posix()] = sha256_file(file)
    return Part(component, tensors, str(files[0].parent))


def notes_of(erasure: Erasure) -> list[str]:
    """What a reader of results with this checkpoint should know; empty for an erasure that was made here."""
    return list(erasure.meta.get("checkpoint", {}).get("notes", []))
