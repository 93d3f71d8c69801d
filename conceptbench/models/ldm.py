"""Stable Diffusion's original (CompVis, LDM) names of tensors, translated to a base's own.

The autoencoder and the text encoders go through diffusers' converters. The UNet does not: that converter counts the blocks in
the file, so that from a file with cross-attention only (as ESD's) it drops tensors without a word. Here a table is made from
the base's UNet instead; on whole files both give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base

UNET_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
VAE_PREFIX = "first_stage_model."
TEXT_PREFIXES = {
    "cond_stage_model.transformer.": "text_encoder",  # SD 1
    "cond_stage_model.model.": "text_encoder",  # SD 2, OpenCLIP
    "conditioner.embedders.0.transformer.": "text_encoder",  # SDXL
    "conditioner.embedders.1.model.": "text_encoder_2",  # SDXL, OpenCLIP
}
OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
INNER = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def is_original(name: str) -> bool:
    """Whether a tensor's name is one of a whole original file."""
    return name.startswith((UNET_PREFIXES[0], VAE_PREFIX, *TEXT_PREFIXES))


def unet_names(unet: nn.Module) -> dict[str, str]:
    """Original name -> diffusers name of every parameter of a UNet."""
    names = [n for n, _ in unet.named_parameters()]
    depth = int(unet.config.layers_per_block) + 1  # type: ignore[union-attr, arg-type]
    attended = {n.split(".")[1] for n in names if n.startswith("up_blocks.") and ".attentions." in n}
    return {_original(n, depth, attended): n for n in names}


def _original(name: str, depth: int, attended: set[str]) -> str:
    """The original name of a diffusers parameter; ``depth`` blocks a level, ``attended``: up blocks with attention."""
    module, _, leaf = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{leaf}"
    parts = name.split(".")
    if parts[0] == "mid_block":
        return ".".join([f"middle_block.{2 * int(parts[2]) if parts[1] == 'resnets' else 1}", *_inside(parts[1], parts[3:])])
    block, kind, layer, inside = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    place = "01"[kind == "attentions"]
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * depth}.0.op.{leaf}"
        return ".".join([f"input_blocks.{1 + block * depth + layer}.{place}", *_inside(kind, inside)])
    if kind == "upsamplers":
        return f"output_blocks.{block * depth + depth - 1}.{2 if parts[1] in attended else 1}.conv.{leaf}"
    return ".".join([f"output_blocks.{block * depth + layer}.{place}", *_inside(kind, inside)])


def _inside(kind: str, parts: list[str]) -> list[str]:
    return [INNER.get(p, p) for p in parts] if kind == "resnets" else parts


def from_original(tensors: Mapping[str, Tensor], base: Base) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Sorts a whole original file into the base's components.

    Args:
        tensors: by original name.
        base: its networks' configs steer the conversion.

    Returns:
        Component -> tensors by diffusers name (names that the base's UNet has not stay as they are), and the names of no component.

    Raises:
        UserInputError: the file has a component that the base has not.
    """
    found: dict[str, dict[str, Tensor]] = {}
    prefixes = {UNET_PREFIXES[0]: "unet", VAE_PREFIX: "vae", **TEXT_PREFIXES}
    used: set[str] = set()
    for prefix, component in prefixes.items():
        part = {k: t for k, t in tensors.items() if k.startswith(prefix)}
        if not part:
            continue
        if component not in base.modules():
            raise UserInputError(
                f"the file has a {component} ({prefix}...), which a base of family {base.info.family} has not", "give the base that it was made from"
            )
        used.update(part)
        found.setdefault(component, {}).update(_converted(part, prefix, component, base))
    return found, [k for k in tensors if k not in used]


def _converted(part: dict[str, Tensor], prefix: str, component: str, base: Base) -> dict[str, Tensor]:
    from diffusers.loaders import single_file_utils as converters

    module: Any = base.modules()[component]
    if component == "unet":
        names = unet_names(module)
        return {names.get(k.removeprefix(prefix), k): t for k, t in part.items()}
    if component == "vae":
        return dict(converters.convert_ldm_vae_checkpoint(part, dict(module.config)))
    if prefix.endswith("transformer."):
        return dict(converters.convert_ldm_clip_checkpoint(part))
    return dict(converters.convert_open_clip_checkpoint(module, part, prefix=prefix))
