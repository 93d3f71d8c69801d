"""Judges for FID and its like: the Inception network of the original FID, as torch-fidelity ports it, with two ways of resizing.

The network is that of TensorFlow's release of 2015-12-05, not torchvision's ``inception_v3``. How images become 299 px decides on the
value as much as the weights do (Parmar et al. 2022), so that each way is a judge of its own:

===================  =============================================================================================================
``inception-clean``  PIL's bicubic with antialiasing, each channel in float, cut to [0, 255], not rounded: clean-fid's mode ``clean``
``inception-tf``     TensorFlow 1's bilinear without antialiasing, inside the network: the original FID's, and torch-fidelity's
===================  =============================================================================================================

clean-fid takes the same weights from another port (NVIDIA's), whose features may differ in the last digits.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.files import sha256_file
from conceptbench.core.judge import JudgeCard, Outputs
from conceptbench.models.rows import in_blocks

SIDE = 299
ROWS = 8  # of every forward
LAYER = "2048"
SOURCE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
VARIABLE = "CONCEPTBENCH_INCEPTION"
PREPROCESSING = {
    "clean": f"PIL bicubic in float to {SIDE}, cut to [0, 255]; (x - 128) / 128",
    "tf": f"TensorFlow 1 bilinear to {SIDE}; (x - 128) / 128",
}


def weights_path(path: Path | None = None) -> Path:
    """Where the weights are: the path given, else ``$CONCEPTBENCH_INCEPTION``, else torch's cache under torch-fidelity's file name.

    Raises:
        MissingWeightsError: no file there; the hint is the command that fetches it.
    """
    named = os.environ.get(VARIABLE)
    found = path or (Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints" / Path(SOURCE).name)
    if not found.is_file():
        raise MissingWeightsError(f"the Inception network of FID needs {found}", _command(found))
    return found


def _command(path: Path) -> str:
    return f"with a network: curl -L --create-dirs -o '{path}' {SOURCE}  (or name a file you have: {VARIABLE}=FILE)"


def load_network(path: Path) -> nn.Module:
    """torch-fidelity's network with the weights of a file.

    The library reads files in the way that runs code in them. So the file is read here as tensors only, and the library is given
    bytes made of those.

    Args:
        path: a state dict of torch-fidelity's ``FeatureExtractorInceptionV3``.

    Raises:
        MissingWeightsError: the library is not installed, or the file is damaged or holds something else.
    """
    try:
        library: Any = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise MissingWeightsError("the Inception network of FID needs the package torch-fidelity", "pip install torch-fidelity") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        safe = io.BytesIO()
        torch.save(dict(state), safe)
        safe.seek(0)
        network: nn.Module = library.FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], feature_extractor_weights_path=safe)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise MissingWeightsError(f"the Inception network of FID cannot use {path}: {cause}", f"delete it and fetch it again, {_command(path)}") from error
    return network


def resized(images: NDArray[np.uint8]) -> Tensor:
    """clean-fid's resizing.

    Args:
        images: (N, H, W, 3) uint8 RGB.

    Returns:
        (N, 3, 299, 299) float32 in [0, 255], not rounded.
    """
    channels = [[Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for c in np.moveaxis(i.astype(np.float32), -1, 0)] for i in images]
    return torch.from_numpy(np.array([[np.asarray(c) for c in i] for i in channels], np.float32)).clamp(0, 255)


class Inception:
    """2048 pooled features an image.

    Args:
        id: registered name.
        resize: ``clean`` or ``tf``.
        path: of the weights; None: where :func:`weights_path` finds them.

    Raises:
        MissingWeightsError: the weights are not on this machine, or damaged.
    """

    def __init__(self, id: str, resize: Literal["clean", "tf"], path: Path | None = None) -> None:
        found = weights_path(path)
        self.network, self.resize = load_network(found), resize
        # what the network does after its own resizing; its last child makes class scores
        self.trunk = nn.Sequential(*(layer for name, layer in self.network.named_children() if name != "fc"), nn.Flatten())
        licence = "Apache-2.0 (TensorFlow's weights, torch-fidelity's port), trained on ImageNet"
        self.card = JudgeCard(id, "features", sha256_file(found), SOURCE, licence, PREPROCESSING[resize], {})

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``features`` (N, 2048) float32, not negative.

        Raises:
            UserInputError: images are not bytes: of [0, 1] or [-1, 1] the network would see black.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise UserInputError(
                f"judge {self.card.id!r} takes images (N, H, W, 3) of bytes in [0, 255]; it was given {images.shape} of {images.dtype}", "convert them to uint8"
            )
        if self.resize == "clean":
            return {"features": in_blocks(self._trunk_of_299, ROWS, resized(images)).numpy()}
        x = torch.tensor(images).permute(0, 3, 1, 2)
        return {"features": in_blocks(lambda b: self.network(b)[0], ROWS, x).numpy()}

    def _trunk_of_299(self, x: Tensor) -> Tensor:
        features: Tensor = self.trunk((x - 128) / 128)
        return features


def inception_clean() -> Inception:
    """The network behind clean-fid's resizing: MACE, RECE, SPM on COCO."""
    return Inception("inception-clean", "clean")


def inception_tf() -> Inception:
    """The network behind its own resizing: torch-fidelity and the original FID; SPM beside the original model."""
    return Inception("inception-tf", "tf")
