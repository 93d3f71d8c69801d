"""Named groups of a denoiser's parameters: one table, each an (include, exclude) pair of patterns on parameter names.

The groups are those of the methods' papers (see the comments); ``noxattn`` is what the original latent-diffusion code of
ESD-u leaves in: the time embedding and the output layers stay frozen. Do not match ``time_emb``: it also hits
``resnets.*.time_emb_proj``.
"""

from __future__ import annotations

import re

from torch import nn

from conceptbench.core.errors import ConceptBenchError, unknown_name

GROUPS: dict[str, tuple[str, str]] = {
    "full": (r".", r"(?!)"),
    "xattn": (r"\.attn2\.", r"(?!)"),  # ESD-x, FMN, SDD, G-CiRs
    "kv": (r"\.attn2\.to_[kv]\.weight$", r"(?!)"),  # UCE, CA, SepME, ESD-x-strict
    "selfattn": (r"\.attn1\.", r"(?!)"),
    "attn": (r"\.attn[12]\.", r"(?!)"),
    "noxattn": (r".", r"\.attn2\.|^conv_out\.|^conv_norm_out\.|^time_embedding\."),  # ESD-u, SA, KPOP on nudity
}


def select(module: nn.Module, group: str) -> dict[str, nn.Parameter]:
    """The parameters of a group by name, in the module's order.

    Raises:
        UserInputError: there is no such group.
        ConceptBenchError: the group is empty in this module (another architecture).
    """
    if group not in GROUPS:
        raise unknown_name("parameter group", group, GROUPS)
    include, exclude = GROUPS[group]
    chosen = {n: p for n, p in module.named_parameters() if re.search(include, n) and not re.search(exclude, n)}
    if not chosen:
        raise ConceptBenchError(f"parameter group {group!r} matches nothing in {type(module).__name__}", "the base is of another architecture")
    return chosen
