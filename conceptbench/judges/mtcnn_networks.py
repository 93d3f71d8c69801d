"""The three networks of MTCNN, a finder of faces, and the reading of their weights: det1.npy to det3.npy of facenet's port.

Zhang et al., Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks (2016). Images are transposed
for the original networks, which come from Matlab; here the kernels are, which gives the same.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import sha256_file

KINDS = {"weights": "weight", "biases": "bias", "alpha": "weight"}
NUMBERS = re.compile("[fiu][248]")


class _Flatten(nn.Module):
    """(N, C, H, W) to (N, W * H * C), the order in which the weights were saved."""

    def forward(self, x: Tensor) -> Tensor:
        """Width varies slowest, channels fastest."""
        return x.permute(0, 3, 2, 1).flatten(1)


class Stage(nn.Module):
    """One of the three networks.

    Args:
        body: layers by the names that the file has.
        heads: name -> layer: first the score of background and face, then four shifts of the box's ends; others are not used.
    """

    def __init__(self, body: dict[str, nn.Module], heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.body, self.heads = nn.Sequential(OrderedDict(body)), nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W), pixels / 128 around 0. Returns (N, 5, ...): the probability of a face, and the shifts."""
        y = self.body(x)
        score, shifts, *_ = (head(y) for head in self.heads.values())
        return torch.cat([score.softmax(1)[:, 1:2], shifts], 1)


def proposal_network() -> Stage:
    """The first, fully convolutional: one window of 12 px every 2 px."""
    body: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 10, 3), "PReLU1": nn.PReLU(10), "pool1": nn.MaxPool2d(2, 2, ceil_mode=True),
        "conv2": nn.Conv2d(10, 16, 3), "PReLU2": nn.PReLU(16),
        "conv3": nn.Conv2d(16, 32, 3), "PReLU3": nn.PReLU(32),
    }  # fmt: skip
    return Stage(body, {"conv4-1": nn.Conv2d(32, 2, 1), "conv4-2": nn.Conv2d(32, 4, 1)})


def refining_network() -> Stage:
    """The second, for crops of 24 px."""
    body: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 28, 3), "prelu1": nn.PReLU(28), "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        "conv2": nn.Conv2d(28, 48, 3), "prelu2": nn.PReLU(48), "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(48, 64, 2), "prelu3": nn.PReLU(64), "flat": _Flatten(),
        "conv4": nn.Linear(576, 128), "prelu4": nn.PReLU(128),
    }  # fmt: skip
    return Stage(body, {"conv5-1": nn.Linear(128, 2), "conv5-2": nn.Linear(128, 4)})


def output_network() -> Stage:
    """The third, for crops of 48 px; its landmarks are not used."""
    body: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 32, 3), "prelu1": nn.PReLU(32), "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        "conv2": nn.Conv2d(32, 64, 3), "prelu2": nn.PReLU(64), "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(64, 64, 3), "prelu3": nn.PReLU(64), "pool3": nn.MaxPool2d(2, 2, ceil_mode=True),
        "conv4": nn.Conv2d(64, 128, 2), "prelu4": nn.PReLU(128), "flat": _Flatten(),
        "conv5": nn.Linear(1152, 256), "prelu5": nn.PReLU(256),
    }  # fmt: skip
    return Stage(body, {"conv6-1": nn.Linear(256, 2), "conv6-2": nn.Linear(256, 4), "conv6-3": nn.Linear(256, 10)})


class _Type:
    """A stand-in for ``numpy.dtype``: the code of a number, or ``O`` for the array around the dict."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """A stand-in for ``numpy.ndarray``. Numpy's own would take any bytes for the addresses of objects."""

    def __init__(self, *_: object) -> None:
        self.content: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if kind.code[0] == "O":
            (self.content,) = data
        elif NUMBERS.fullmatch(kind.code):
            data = data.encode("latin1") if isinstance(data, str) else data
            self.content = np.frombuffer(data, np.dtype(kind.order + kind.code)).reshape(shape, order="F" if fortran else "C")
        else:
            raise pickle.UnpicklingError(f"it has an array of type {kind.code}")


def _encoded(text: str, _: str) -> bytes:
    return text.encode("latin1")


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encoded,  # of bytes in pickles that Python 2 can read, too
}


class _ArraysOnly(pickle.Unpickler):
    """Builds arrays of numbers and plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for each of the names that a pickled array needs."""
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, and nothing was run")
        return STAND_INS[module, name]


def read_layers(path: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Reads layer -> kind -> array from a .npy file that holds a pickled dict, without running anything in it.

    ``numpy.load`` would need ``allow_pickle=True``, which runs whatever the file says.

    Raises:
        UserInputError: it is no such file, or its pickle wants to call something else than the builders of arrays.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) == (1, 0):
                np.lib.format.read_array_header_1_0(file)
            else:
                np.lib.format.read_array_header_2_0(file)
            layers = _ArraysOnly(io.BytesIO(file.read()), encoding="latin1").load().content
        return {str(layer): {str(kind): np.asarray(array.content, np.float32) for kind, array in kinds.items()} for layer, kinds in layers.items()}
    except Exception as error:  # a parser of foreign bytes fails in many ways; each is the file's fault
        raise UserInputError(
            f"{path} is no file of MTCNN's weights: {str(error).partition(chr(10))[0]} (sha256 {sha256_file(path)})",
            "expected: numpy's format around a dict of layers, as facenet and GIPHY ship it",
        ) from error


def load_stage(stage: Stage, path: Path) -> Stage:
    """Reads a network's weights.

    Raises:
        UserInputError: names or shapes are not the network's; the first one is named.
    """
    found: dict[str, Tensor] = {}
    for layer, kinds in read_layers(path).items():
        part = "heads" if layer in stage.heads else "body"
        for kind, array in kinds.items():
            found[f"{part}.{layer}.{KINDS.get(kind, kind)}"] = torch.tensor(np.ascontiguousarray(array.T))
    check_names(stage.state_dict(), found, path)
    stage.load_state_dict(found)
    return stage.eval().requires_grad_(False)


def check_names(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Refuses weights of another network.

    Raises:
        UserInputError: names or shapes differ; the first one and the file's sha256 are in the message.
    """
    wrong = [f"{k!r} is missing" for k in wanted if k not in found]
    wrong += [f"{k!r} is not in the network" for k in found if k not in wanted]
    wrong += [f"{k!r} is {tuple(found[k].shape)}, not {tuple(v.shape)}" for k, v in wanted.items() if k in found and found[k].shape != v.shape]
    if wrong:
        raise UserInputError(f"{path} holds other weights than expected: {wrong[0]} ({len(wrong)} differences; sha256 {sha256_file(path)})")


def network_input(pixels: NDArray[Any]) -> Tensor:
    """(N, H, W, 3) in [0, 255] to (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(((np.asarray(pixels, np.float64) - 127.5) / 128).astype(np.float32)).permute(0, 3, 1, 2).contiguous()
