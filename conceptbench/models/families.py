"""The families of bases that diffusers pipelines come in, and loading them from a folder or a hub id."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conceptbench.core.errors import MissingWeightsError, UserInputError, unknown_name
from conceptbench.core.files import key_of
from conceptbench.core.registry import BASES
from conceptbench.models.base import Base
from conceptbench.models.class_conditional import ClassDiffusionBase, CVAEBase
from conceptbench.models.class_pipeline import ClassPipeline, is_class_folder
from conceptbench.models.info import BaseInfo
from conceptbench.models.stable_diffusion import StableDiffusionBase, StableDiffusionXLBase


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.view(torch.uint8).numpy().data if tensor.dim() else bytes(tensor.reshape(1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _config(module: Any) -> dict[str, Any]:
    """The part of a network's config that shapes what it computes: scaling factors, sizes, activations."""
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    return {k: repr(v) for k, v in config.items() if not k.startswith("_") and k not in ("transformers_version", "dtype", "torch_dtype")}


def component_hashes(pipeline: Any) -> dict[str, str]:
    """Content hashes of everything in a pipeline that shapes its images."""
    hashes = {k: key_of({"weights": hash_tensors(v.state_dict()), "config": _config(v)}) for k, v in pipeline.components.items() if isinstance(v, nn.Module)}
    hashes["pipeline"] = key_of({k: v for k, v in pipeline.config.items() if isinstance(v, (bool, int, float)) or k == "classes"})
    for name, part in pipeline.components.items():
        if name.startswith("tokenizer") and part is not None:
            hashes[name] = key_of({"vocabulary": part.get_vocab(), "special": part.special_tokens_map, "length": int(min(part.model_max_length, 10**6))})
        elif name == "scheduler":
            hashes[name] = key_of({k: v for k, v in part.config.items() if not k.startswith("_")})
    return hashes


KINDS: dict[str, type[Base]] = {
    "sd1": StableDiffusionBase,
    "sd2": StableDiffusionBase,
    "sdxl": StableDiffusionXLBase,
    "ddpm": ClassDiffusionBase,
    "cvae": CVAEBase,
}


def family_of(pipeline: Any) -> str:
    """A family of :data:`KINDS` from a pipeline's structure.

    Raises:
        UserInputError: it is none of them.
    """
    if isinstance(pipeline, ClassPipeline):
        return pipeline.family
    if hasattr(pipeline, "text_encoder_2") and hasattr(pipeline, "unet"):
        return "sdxl"
    if not hasattr(pipeline, "unet") or not hasattr(pipeline, "text_encoder"):
        raise UserInputError(f"{type(pipeline).__name__} is of no family that ConceptBench knows", f"families: {', '.join(KINDS)}")
    return "sd2" if pipeline.unet.config.use_linear_projection else "sd1"


def base_from_pipeline(pipeline: Any, id: str, *, revision: str = "", tier: str = "paper") -> Base:
    """Wraps a loaded pipeline; a safety checker is taken off and that is noted."""
    notes: tuple[str, ...] = ()
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
        notes = ("the safety checker is off: it would black out images and bias every score",)
    family = family_of(pipeline)
    base = KINDS[family](BaseInfo(id, family, revision, component_hashes(pipeline), notes, tier), pipeline)
    base.info = replace(base.info, size=base.latent_shape(None)[1] * base.factor)
    return base


def load_pipeline(path_or_id: str, *, dtype: torch.dtype = torch.float32, revision: str | None = None) -> Any:
    """Any diffusers text-to-image folder or hub id, or the folder of a class-conditional model, as a pipeline, silently.

    Raises:
        MissingWeightsError: it is neither a folder nor in the local hub cache while offline.
    """
    if is_class_folder(Path(path_or_id)):
        return ClassPipeline.from_pretrained(path_or_id, dtype)
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    extra: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(path_or_id, dtype=dtype, local_files_only=offline or Path(path_or_id).is_dir(), **extra)
    except (OSError, ValueError) as error:
        hint = "give a folder with model_index.json, or download it: hf download " + path_or_id
        raise MissingWeightsError(f"cannot load the base {path_or_id!r}: {error}", hint) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_base(name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, precision: str = "fp32", compiled: bool = False) -> Base:
    """A base by registered name, by folder, or by hub id (``owner/name``, ``owner/name@revision``).

    Args:
        name: which one.
        device: where its networks go.
        dtype: of its weights.
        precision: of sampling, see :meth:`Base.sample_with`.
        compiled: of sampling, see there.

    Raises:
        UserInputError: it is none of these (with the nearest registered name).
        MissingWeightsError: it cannot be loaded.
    """
    if name in BASES.names():
        base: Base = BASES.load(name)()
    elif Path(name).is_dir():
        base = base_from_pipeline(load_pipeline(name, dtype=dtype), Path(name).resolve().name)
    elif "/" in name:
        identity, _, revision = name.partition("@")
        base = base_from_pipeline(load_pipeline(identity, dtype=dtype, revision=revision or None), identity, revision=revision)
    else:
        raise unknown_name("base", name, BASES.names(), "or give a diffusers folder, or a hub id owner/name")
    base.pipeline.to(device)
    base.sample_with(precision, compiled=compiled)
    return base
