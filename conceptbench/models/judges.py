"""Judges of the paper tier: torchvision's ImageNet classifiers and open_clip models, from this machine's caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from conceptbench.core.errors import MissingWeightsError
from conceptbench.core.files import sha256_file
from conceptbench.core.metric import JudgeCard, Outputs
from conceptbench.models.families import hash_tensors
from conceptbench.models.rows import in_blocks

BATCH = 32


class ImageNetClassifier:
    """A torchvision classifier over ImageNet's 1000 classes, with the preprocessing of its weights.

    Args:
        id: registered name.
        architecture: torchvision's name, e.g. ``resnet50``.
        weights: torchvision's name of the weights, e.g. ``IMAGENET1K_V2``; V1 and V2 differ in size and accuracy and are
            two protocols.

    Raises:
        MissingWeightsError: the weights file is not in torch's cache.
    """

    def __init__(self, id: str, architecture: str, weights: str) -> None:
        entry = torchvision.models.get_model_weights(architecture)[weights]
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
        if not path.exists():
            command = f"python -c \"import torchvision; torchvision.models.get_model('{architecture}', weights='{weights}')\""
            raise MissingWeightsError(f"judge {id!r} needs {path}", f"with a network: {command}")
        self.transform = entry.transforms()
        self.network = torchvision.models.get_model(architecture)
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network.eval().requires_grad_(False)
        # labels by index: ImageNet has two classes called crane and two called maillot
        labels = {"imagenet": tuple(f"{i}:{name}" for i, name in enumerate(entry.meta["categories"]))}
        preprocessing = f"resize {self.transform.resize_size[0]} {self.transform.interpolation.value}, crop {self.transform.crop_size[0]}"
        self.card = JudgeCard(id, "classifier", sha256_file(path), entry.url, "weights of torchvision (BSD), trained on ImageNet", preprocessing, labels)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], texts: Sequence[str]) -> Outputs:
        """Probabilities (N, 1000) of the head ``imagenet``."""
        x = torch.stack([self.transform(torch.tensor(i).permute(2, 0, 1)) for i in images])
        return {"imagenet": in_blocks(self.network, BATCH, x).softmax(-1).numpy()}


class OpenCLIP:
    """An open_clip model; a text longer than its context is cut.

    Args:
        id: registered name.
        architecture: open_clip's name, e.g. ``ViT-B-32-quickgelu``.
        pretrained: open_clip's tag of the weights, or a file.

    Raises:
        MissingWeightsError: the weights are not in the local cache while offline.
    """

    def __init__(self, id: str, architecture: str, pretrained: str) -> None:
        try:
            model, _, self.preprocess = open_clip.create_model_and_transforms(architecture, pretrained=pretrained)
        except (OSError, RuntimeError, ValueError) as error:
            raise MissingWeightsError(
                f"judge {id!r} needs open_clip {architecture} / {pretrained}: {error}", "run once with a network, or give a local file"
            ) from error
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(architecture)
        digest = hash_tensors(model.state_dict())
        self.card = JudgeCard(
            id,
            "image-text",
            digest,
            f"open_clip {architecture} {pretrained}",
            "MIT (OpenAI CLIP)",
            "open_clip's own: bicubic resize, centre crop",
            {},
            needs_text=True,
        )

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], texts: Sequence[str]) -> Outputs:
        """``cosine`` (N,) of each image with its text."""
        x: Tensor = torch.stack([self.preprocess(Image.fromarray(i)) for i in images])
        ids = self.tokenizer(list(texts))
        image = in_blocks(lambda b: self.model.encode_image(b, normalize=True), BATCH, x)
        text = in_blocks(lambda b: self.model.encode_text(b, normalize=True), BATCH, ids)
        return {"cosine": (image * text).sum(-1).numpy()}


def resnet50_v2() -> ImageNetClassifier:
    """KPOP's and ESD's judge: torchvision's default weights (resize 232)."""
    return ImageNetClassifier("resnet50-v2", "resnet50", "IMAGENET1K_V2")


def resnet50_v1() -> ImageNetClassifier:
    """SepME's judge: ``pretrained=True`` of older torchvision (resize 256)."""
    return ImageNetClassifier("resnet50-v1", "resnet50", "IMAGENET1K_V1")


def clip_b32() -> OpenCLIP:
    """OpenAI's ViT-B/32, KPOP's and UCE's."""
    return OpenCLIP("openai-b32", "ViT-B-32-quickgelu", "openai")


def clip_l14() -> OpenCLIP:
    """OpenAI's ViT-L/14, torchmetrics' default."""
    return OpenCLIP("openai-l14", "ViT-L-14-quickgelu", "openai")
