"""Image-text judges of the paper tier: open_clip models, from this machine's caches or from a file. They download nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import torch
import torchvision.transforms.functional as F
from numpy.typing import NDArray
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from PIL import Image
from torch import Tensor

from conceptbench.core.errors import MissingWeightsError, UserInputError, nearest
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.models.families import hash_tensors
from conceptbench.models.rows import in_blocks

BATCH = 32
OPENAI = "MIT (OpenAI CLIP)"


def _in_caches(cfg: dict[str, Any]) -> Path | None:
    """Where the weights of a tag of open_clip's are: in the hub's cache, else in that of OpenAI's package; None if in neither."""
    repository, _, name = str(cfg.get("hf_hub", "")).rpartition("/")
    for file in (name,) if name else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        found = huggingface_hub.try_to_load_from_cache(repository, file) if repository else None
        if isinstance(found, str):
            return Path(found)
    path = Path("~/.cache/clip").expanduser() / Path(str(cfg.get("url", ""))).name
    return path if path.is_file() else None


def weights_file(judge: str, architecture: str, pretrained: str) -> tuple[Path, dict[str, Any]]:
    """The weights of an open_clip model on this machine, and the settings that come with them.

    Args:
        judge: registered name, for messages.
        architecture: open_clip's name.
        pretrained: open_clip's tag of the weights, or a file.

    Returns:
        The file, and open_clip's settings of the tag (mean, std, interpolation ...); none for a file.

    Raises:
        UserInputError: open_clip has no such architecture.
        MissingWeightsError: there is no such tag and no such file, or the tag's weights are not in a cache; the hint says what to do.
    """
    known = open_clip.list_models()
    if architecture not in known:
        close = nearest(architecture, known)
        raise UserInputError(
            f"judge {judge!r}: open_clip has no architecture {architecture!r}" + (f"; did you mean {close!r}?" if close else ""),
            'all of them: python -c "import open_clip; print(open_clip.list_models())"',
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained not in tags:
        if Path(pretrained).is_file():
            return Path(pretrained), {}
        raise MissingWeightsError(
            f"judge {judge!r} needs open_clip weights {pretrained!r}, which is neither a file nor a tag of {architecture}",
            f"tags: {', '.join(tags) or 'none'}",
        )
    cfg = dict(open_clip.get_pretrained_cfg(architecture, pretrained))
    path = _in_caches(cfg)
    if path is None:
        command = f"import open_clip; open_clip.create_model('{architecture}', pretrained='{pretrained}')"
        raise MissingWeightsError(
            f"judge {judge!r} needs open_clip {architecture} / {pretrained}, and it is not in the cache {huggingface_hub.constants.HF_HUB_CACHE}",
            f'with a network: python -c "{command}"',
        )
    return path, cfg


def reduced(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) with its shorter side of so many px: torchvision's bilinear resize of bytes with antialiasing."""
    resized = F.resize(torch.from_numpy(image.copy()).permute(2, 0, 1), side, antialias=True)
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


class OpenCLIP:
    """An open_clip model in fp32. A text longer than its context is cut and keeps its end token.

    A user's own: ``OpenCLIP("my-clip", "ViT-B-32-quickgelu", "/path/to/weights.pt")`` in a function without arguments that is an
    entry point ``conceptbench.judges`` of an installed package, or that a file registers with ``JUDGES.add("my-clip", function)``.

    Args:
        id: registered name.
        architecture: open_clip's name, e.g. ``ViT-B-32-quickgelu``; OpenAI's weights need a ``quickgelu`` one.
        pretrained: open_clip's tag of the weights, or a file of them (safetensors, or a pickle of tensors), which is prepared as
            OpenAI's weights are.
        licence: of the weights.
        first: px that the shorter side is reduced to before the model's own preprocessing (:func:`reduced`); None: not.

    Raises:
        UserInputError: open_clip has no such architecture.
        MissingWeightsError: the weights are not on this machine, or cannot be read.
    """

    def __init__(self, id: str, architecture: str, pretrained: str, *, licence: str = "see the weights' own", first: int | None = None) -> None:
        path, settings = weights_file(id, architecture, pretrained)
        try:
            model: Any = open_clip.create_model(architecture, pretrained=str(path), force_preprocess_cfg=settings)
            self.tokenizer = open_clip.get_tokenizer(architecture)
        except Exception as error:  # pickle, zip, safetensors, torch and the hub each raise their own
            cause = str(error).strip().partition("\n")[0]
            raise MissingWeightsError(
                f"judge {id!r} cannot make open_clip {architecture} of {path}: {cause}", "delete it and fetch it again, or give the architecture of the file"
            ) from error
        self.model = model.eval().requires_grad_(False)
        self.first = first
        prepared = open_clip.transform.PreprocessCfg(**self.model.visual.preprocess_cfg)
        self.preprocess = open_clip.transform.image_transform_v2(prepared, is_train=False)
        described = f"{prepared.size} px, {prepared.interpolation}, {prepared.resize_mode}, mean {prepared.mean}, std {prepared.std}"
        if first is not None:
            described = f"shorter side to {first} px, bilinear of bytes with antialiasing; then {described}"
        digest = hash_tensors(self.model.state_dict())
        self.card = JudgeCard(id, "image-text", digest, f"open_clip {architecture} {pretrained}", licence, described, {})

    def prepared(self, images: NDArray[np.uint8]) -> Tensor:
        """What the network sees: (N, 3, size, size) float32, normalised."""
        smaller = images if self.first is None else [reduced(i, self.first) for i in images]
        return torch.stack([self.preprocess(Image.fromarray(i)) for i in smaller])

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``embedding`` (N, D) float32 of length 1."""
        return {"embedding": in_blocks(lambda b: self.model.encode_image(b, normalize=True), BATCH, self.prepared(images)).numpy()}

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) embeddings of length 1 of at least one text."""
        return in_blocks(lambda b: self.model.encode_text(b, normalize=True), BATCH, self.tokenizer(list(texts))).numpy()


def clip_b32() -> OpenCLIP:
    """OpenAI's ViT-B/32: UCE, MACE, RECE, CA and SPM (the last two ask it in half precision on a GPU)."""
    return OpenCLIP("openai-b32", "ViT-B-32-quickgelu", "openai", licence=OPENAI)


def clip_b32_kpop() -> OpenCLIP:
    """OpenAI's ViT-B/32 on images that are reduced bilinearly first, as KPOP's script does; not the numbers of ``openai-b32``."""
    return OpenCLIP("openai-b32-kpop", "ViT-B-32-quickgelu", "openai", licence=OPENAI, first=224)


def clip_l14() -> OpenCLIP:
    """OpenAI's ViT-L/14: torchmetrics' default, UnlearnDiffAtk's, and one of RECE's two."""
    return OpenCLIP("openai-l14", "ViT-L-14-quickgelu", "openai", licence=OPENAI)


def eva02_l14_336() -> OpenCLIP:
    """EVA-02 CLIP L/14 at 336 px: erase-eval's."""
    return OpenCLIP("eva02-l14-336", "EVA02-L-14-336", "merged2b_s6b_b61k", licence="MIT (EVA-CLIP)")
