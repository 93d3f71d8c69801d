"""LoRA files (Hu et al. 2021, arXiv:2106.09685), in every spelling that people have, as low-rank changes of a base.

W' = W + (alpha / rank) B A. Where a file has no alpha, alpha = rank, as diffusers and peft read it. Conventions:
``lora_down`` = ``down`` = ``lora_A`` = A; ``lora_up`` = ``up`` = ``lora_B`` = B; ``lora_mid`` is LoCon's third factor of a convolution.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from conceptbench.core.errors import UserInputError
from conceptbench.models.base import Base
from conceptbench.models.erasure import Change
from conceptbench.models.ldm import unet_names
from conceptbench.models.weight_files import some

PART = re.compile(r"^(?P<stem>.+?)(?:[._]lora|\.lora_linear_layer)?[._](?P<part>lora_A|lora_B|lora_down|lora_up|lora_mid|down|up)(?P<adapter>\.\w+)?\.weight$")
ALPHA = re.compile(r"^(?P<stem>.+?)(?:[._]lora|\.lora_linear_layer)?\.alpha$")
ROLE = {"lora_A": "A", "lora_down": "A", "down": "A", "lora_B": "B", "lora_up": "B", "up": "B", "lora_mid": "mid"}
UNSUPPORTED = {
    r"dora_scale|lora_magnitude_vector": "DoRA (a magnitude beside the two factors)",
    r"hada_|lokr_": "LoHa or LoKr (LyCORIS)",
    r"lora_embedding_": "a LoRA of an embedding",
    r"lora_B\..*bias$|\.diff_b$|\.diff$": "a LoRA with biases or whole differences",
}
KOHYA = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}
OLD_NAMES = {
    "self_attn.to_q": "self_attn.q_proj",
    "self_attn.to_k": "self_attn.k_proj",
    "self_attn.to_v": "self_attn.v_proj",
    "self_attn.to_out": "self_attn.out_proj",
}


@dataclass
class _Pair:
    """What a file says of one module."""

    parts: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None


def is_lora(names: Mapping[str, Any]) -> bool:
    """Whether a file's tensors are those of a LoRA (or of a relative of it)."""
    return any(re.search(r"lora|" + "|".join(UNSUPPORTED), n) for n in names)


def lora_changes(tensors: Mapping[str, Tensor], config: Mapping[str, Any], base: Base) -> list[Change]:
    """Low-rank changes of a LoRA file, with alpha / rank folded into B.

    Args:
        tensors: by the file's names.
        config: peft's adapter config if there is one: ``lora_alpha``, ``alpha_pattern``, ``use_rslora``, perhaps under ``unet.`` etc.
        base: the model that the LoRA was made for.

    Raises:
        UserInputError: it is of another kind, or of another base (the first module that does not fit is named).
    """
    for pattern, what in UNSUPPORTED.items():
        strange = next((n for n in tensors if re.search(pattern, n)), None)
        if strange is not None:
            raise UserInputError(f"{strange!r}: {what} is not supported", "merge it into the model with the tool that made it, and give the merged weights")
    pairs = _pairs(tensors)
    places = _places(pairs, base)
    weights = {c: dict(m.named_parameters()) for c, m in base.modules().items()}
    factors: dict[str, dict[str, Tensor]] = {}
    wrong: list[str] = []
    for stem, pair in pairs.items():
        component, name = places[stem]
        a, b = _factors(stem, pair)
        shape = tuple(weights[component][name].shape)
        if a.shape[0] != b.shape[1] or b.shape[0] != shape[0] or a[0].numel() != weights[component][name][0].numel():
            wrong.append(f"{stem} is {tuple(b.shape)} times {tuple(a.shape)} in the file, but {component}.{name} is {shape} in the base")
            continue
        if f"{name}::A" in factors.get(component, {}):
            raise UserInputError(f"the file changes {component}.{name} twice", "give a file with one adapter")
        into = factors.setdefault(component, {})
        # A in the weight's own shape: a linear LoRA of a 1x1 convolution is flat in some files
        into[f"{name}::A"], into[f"{name}::B"] = a.reshape(-1, *shape[1:]).contiguous(), b * _scale(stem, pair, a.shape[0], component, name, config)
    if wrong:
        raise UserInputError(
            f"the LoRA is of another architecture: {wrong[0]}; {len(wrong)} of {len(pairs)} modules do not fit", "give the base that it was made for"
        )
    return [Change(component, "low-rank", part) for component, part in factors.items()]


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, _Pair]:
    """The file's tensors by module."""
    pairs: dict[str, _Pair] = {}
    alphas: dict[str, float] = {}
    adapters: set[str] = set()
    for name, tensor in tensors.items():
        if found := PART.match(name):
            adapters.add(found["adapter"] or "")
            parts, role = pairs.setdefault(_plain(found["stem"]), _Pair()).parts, ROLE[found["part"]]
            if role in parts:
                raise UserInputError(f"{name!r}: the file has more than one adapter for a module ({some(sorted(adapters))})", "give a file with one adapter")
            parts[role] = tensor.detach().cpu().to(torch.float32)
        elif found := ALPHA.match(name):
            alphas[_plain(found["stem"])] = float(tensor)
        else:
            raise UserInputError(
                f"{name!r} in a LoRA file is neither a factor nor an alpha", "merge it into the model with the tool that made it, and give the merged weights"
            )
    for stem, alpha in alphas.items():
        if stem in pairs:
            pairs[stem].alpha = alpha
    return pairs


def _plain(stem: str) -> str:
    """A module's name without the marks of older formats."""
    stem = stem.removeprefix("base_model.model.").replace(".processor.", ".")
    for old, new in OLD_NAMES.items():
        stem = re.sub(rf"{re.escape(old)}$", new, stem)
    return stem


def _factors(stem: str, pair: _Pair) -> tuple[Tensor, Tensor]:
    """A (rank, in, ...) and B (out, rank), LoCon's middle factor multiplied into A."""
    missing = [r for r in ("A", "B") if r not in pair.parts]
    if missing:
        raise UserInputError(f"the LoRA has only one of the two factors of {stem!r}", "save it again")
    a, b = pair.parts["A"], pair.parts["B"].flatten(1)
    if "mid" in pair.parts:
        a = torch.einsum("ijkl,jr->irkl", pair.parts["mid"], a.flatten(1))
    return a, b


def _scale(stem: str, pair: _Pair, rank: int, component: str, name: str, config: Mapping[str, Any]) -> float:
    """Alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA (Kalajdzievski 2023)."""
    if pair.alpha is not None:
        return pair.alpha / rank

    def option(key: str) -> Any:
        return config.get(f"{component}.{key}", config.get(key))

    module = name.removesuffix(".weight")
    patterns = option("alpha_pattern") or {}
    alpha = next((v for k, v in patterns.items() if module == k or module.endswith(f".{k}") or stem.endswith(f".{k}")), option("lora_alpha"))
    if alpha is None:
        return 1.0
    return float(alpha) / (rank**0.5 if option("use_rslora") else rank)


def _places(pairs: Mapping[str, _Pair], base: Base) -> dict[str, tuple[str, str]]:
    """Module of the file -> component and parameter of the base."""
    known = _spellings(base)
    places, strange = {}, []
    for stem in pairs:
        found = known.get(stem, set())
        if len(found) == 1:
            places[stem] = next(iter(found))
        elif found:
            raise UserInputError(f"the LoRA's {stem!r} could be of {' or '.join(sorted(c for c, _ in found))}", "put the component's name in front of its keys")
        else:
            strange.append(stem)
    if strange:
        own = [f"{c}.{n}" for c, n in list(dict.fromkeys(p for s in known.values() for p in s))]
        raise UserInputError(
            f"the LoRA is of another base: {len(strange)} of {len(pairs)} modules have no place in {base.info.id} ({base.info.family}), e.g. {some(strange)}",
            f"the base has e.g. {some(own)}; give the base that it was made for",
        )
    return places


def _spellings(base: Base) -> dict[str, set[tuple[str, str]]]:
    """Every name that a module with a weight matrix goes by, with where it is."""
    known: dict[str, set[tuple[str, str]]] = {}
    for component, module in base.modules().items():
        original = {n: o for o, n in unet_names(module).items()} if component == "unet" else {}
        for name, parameter in module.named_parameters():
            if not name.endswith(".weight") or parameter.dim() < 2:
                continue
            for spelling in _module_names(name, original.get(name)):
                dotted = (f"{component}.{spelling}", spelling)
                flat = tuple(f"{k}_{spelling.replace('.', '_')}" for k in KOHYA.get(component, ()))
                for key in (*dotted, *flat):
                    known.setdefault(key, set()).add((component, name))
    return known


def _module_names(name: str, original: str | None) -> Iterator[str]:
    module = name.removesuffix(".weight")
    yield module
    if module.endswith(".to_out.0"):
        yield module.removesuffix(".0")
    yield module.removeprefix("text_model.") if module.startswith("text_model.") else f"text_model.{module}"
    if original is not None:
        yield original.removesuffix(".weight")
        yield f"diffusion_model.{original.removesuffix('.weight')}"


def adapter_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Peft's adapter config that diffusers writes into the header of a safetensors file; empty if there is none."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except json.JSONDecodeError:
        return {}
    return config if isinstance(config, dict) else {}
