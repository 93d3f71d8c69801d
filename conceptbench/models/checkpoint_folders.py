"""Folders of foreign weights: which files are the weights, and whether configs, tokenizers and schedule are the base's."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base
from conceptbench.models.weight_files import COMPONENTS, SUFFIXES, some

STANDARD = ("diffusion_pytorch_model", "model", "pytorch_lora_weights", "adapter_model", "pytorch_model")
SHARD = re.compile(r"^(?P<stem>.+)-(?P<index>\d+)-of-(?P<count>\d+)$")
NO_NETWORK = ("safety_checker", "feature_extractor", "image_encoder", "scheduler")
# what a config may differ in without another function of the same weights
HARMLESS = {"sample_size", "force_upcast", "upcast_attention", "dropout", "gradient_checkpointing"}
# transformers writes many defaults; these are what shapes a CLIP text encoder
SHAPES_TEXT = {
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "max_position_embeddings",
    "vocab_size",
    "layer_norm_eps",
}
SCHEDULE = ("prediction_type", "beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "rescale_betas_zero_snr")
OTHER_BASE = "give the base that the checkpoint was made from"


@dataclass(frozen=True)
class Part:
    """Tensors of one network.

    Attributes:
        component: of the base, e.g. ``unet``.
        tensors: by the file's names.
        source: the file or folder, for messages.
    """

    component: str
    tensors: dict[str, Tensor]
    source: str


def weight_files(folder: Path) -> list[Path]:
    """The weights in a folder: one file, or all its shards; safetensors before pickles, full precision before variants.

    Raises:
        UserInputError: there are none, shards are missing, or it is not clear which file is meant.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise _no_weights(folder)
    groups: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        shard = SHARD.match(file.stem)
        groups.setdefault((shard["stem"] if shard else file.stem, file.suffix), []).append(file)
    for suffix in (".safetensors", ".bin"):
        for stem in STANDARD:
            if (stem, suffix) in groups:
                return _all_shards(groups[stem, suffix])
    safe = {k: v for k, v in groups.items() if k[1] == ".safetensors"} or groups
    if len(safe) == 1:
        return _all_shards(next(iter(safe.values())))
    raise UserInputError(f"{folder} has several files of weights: {some((f.name for f in files), 8)}", "give the path of one of them")


def _all_shards(files: list[Path]) -> list[Path]:
    shard = SHARD.match(files[0].stem)
    if shard and len(files) != int(shard["count"]):
        raise UserInputError(
            f"{files[0].parent} has only {len(files)} of {int(shard['count'])} shards: {some((f.name for f in files), 8)}", "download it again"
        )
    return files


def _no_weights(folder: Path) -> UserInputError:
    inside = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    below = [p for p in sorted(folder.iterdir()) if p.is_dir() and ((p / "model_index.json").is_file() or any(f.suffix in SUFFIXES for f in p.iterdir()))]
    hint = f"did you mean {str(below[0])!r}?" if below else f"weights end in {', '.join(SUFFIXES)}"
    return UserInputError(f"{folder} has no weights in it" + (f"; it has: {some(inside, 8)}" if inside else ": it is empty"), hint)


def pipeline_parts(folder: Path, base: Base) -> dict[str, list[Path]] | None:
    """The files of each network of a diffusers pipeline; None if the folder is none.

    Raises:
        UserInputError: a network, tokenizer or schedule is of another architecture than the base's.
    """
    index = folder / "model_index.json"
    if index.is_file():
        listed = {k: v for k, v in read_json(index).items() if isinstance(v, list) and v and v[0] is not None}
    else:  # what training scripts write: a folder with `unet` and perhaps `text_encoder` in it
        listed = {c: [] for c in COMPONENTS if (folder / c).is_dir()}
        if not listed:
            return None
    networks = [c for c in listed if c not in NO_NETWORK and not c.startswith("tokenizer")]
    strange = [c for c in networks if c not in base.modules()]
    if strange:
        raise UserInputError(f"{folder} has {some(strange)}, which the base {base.info.id} (family {base.info.family}) has not", OTHER_BASE)
    for component in networks:
        if not (folder / component).is_dir():
            raise UserInputError(f"{folder}: {index.name} lists {component!r}, but there is no such folder in it", "copy or download it again")
        check_config(folder / component, component, base.modules()[component])
    for name in base.pipeline.components:
        if name.startswith("tokenizer") and (folder / name).is_dir():
            _check_tokenizer(folder / name, getattr(base.pipeline, name))
    _check_schedule(folder / "scheduler" / "scheduler_config.json", base)
    return {c: weight_files(folder / c) for c in networks}


def component_of_config(folder: Path, base: Base) -> str | None:
    """The base's network that a folder's ``config.json`` is of; None without one.

    Raises:
        UserInputError: it is of a class that the base has not, or of another architecture.
    """
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    names = [config.get("_class_name"), *(config.get("architectures") or [])]
    classes = {type(m).__name__: c for c, m in base.modules().items()}
    component = next((classes[n] for n in names if n in classes), None)
    if component is None:
        raise UserInputError(f"{folder} is a {next((n for n in names if n), 'network of unnamed class')}; the base has: {some(classes, 8)}", OTHER_BASE)
    check_config(folder, component, base.modules()[component])
    return component


def check_config(folder: Path, component: str, module: nn.Module) -> None:
    """Refuses a config with which the same weights would compute something else. A folder without one passes."""
    if not (folder / "config.json").is_file():
        return
    theirs = _plain(read_json(folder / "config.json"))
    config: Any = module.config
    text = hasattr(config, "to_dict")
    ours = _plain(config.to_dict() if text else dict(config))
    relevant = SHAPES_TEXT if text else {k for k in ours if not k.startswith("_")} - HARMLESS
    differ = [k for k in sorted(relevant) if k in theirs and k in ours and theirs[k] != ours[k]]
    if differ:
        first = f"{differ[0]} is {theirs[differ[0]]!r} there and {ours[differ[0]]!r} in the base"
        more = f" ({len(differ)} options differ: {some(differ, 8)})" if len(differ) > 1 else ""
        raise UserInputError(f"{folder} is of another architecture than the base's {component}: {first}{more}", OTHER_BASE)


def _check_tokenizer(folder: Path, ours: Any) -> None:
    try:
        theirs = type(ours).from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # parsers of several formats
        raise UserInputError(f"{folder} is no readable tokenizer: {str(error).partition(chr(10))[0]}", "copy or download it again") from error
    old, new = ours.get_vocab(), theirs.get_vocab()
    differ = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    if differ:
        raise UserInputError(
            f"{folder} is another tokenizer than the base's: {len(differ)} tokens differ, e.g. {some(map(repr, differ))} ({len(new)} tokens, not {len(old)})",
            "new tokens (textual inversion) cannot be an erasure of this base",
        )
    if theirs.special_tokens_map != ours.special_tokens_map:
        raise UserInputError(f"{folder}: the special tokens are {theirs.special_tokens_map}, the base's are {ours.special_tokens_map}", OTHER_BASE)


def _check_schedule(file: Path, base: Base) -> None:
    if not file.is_file():
        return
    theirs, ours = read_json(file), dict(base.pipeline.scheduler.config)
    for key in SCHEDULE:
        if key in theirs and key in ours and theirs[key] != ours[key]:
            raise UserInputError(f"{file}: {key} is {theirs[key]!r}, but {ours[key]!r} in the base; the weights would be sampled wrongly", OTHER_BASE)


def adapter_of(folder: Path) -> dict[str, Any] | None:
    """Peft's ``adapter_config.json`` of a folder, if it has one."""
    return read_json(folder / "adapter_config.json") if (folder / "adapter_config.json").is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserInputError: it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserInputError(f"{path} is not JSON: {error}", "copy or download it again") from error
    if not isinstance(content, dict):
        raise UserInputError(f"{path} holds a {type(content).__name__}, not an object", "copy or download it again")
    return content


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
