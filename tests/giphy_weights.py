"""A folder of weights for GIPHY's detector: the real architecture and layout with random numbers."""

from __future__ import annotations

import math
import pickle
import struct
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conceptbench.judges import mtcnn_networks
from conceptbench.judges.giphy import LABELS, RECOGNISER, Recogniser

PERSONS = 2306
SHY = {(2, 4): (1.0, -1.0), (2, 2): (0.3, -0.3), (3, 2): (0.9, -0.9)}  # so that not every window looks like a face
STAGES = {"det1.npy": mtcnn_networks.proposal_network, "det2.npy": mtcnn_networks.refining_network, "det3.npy": mtcnn_networks.output_network}


def tensorflow_layers(stage, seed):
    """A network's weights as the file has them: kernels as height, width, in, out; matrices as in, out."""
    generator = np.random.default_rng(seed)
    layers = {}
    for part in ("body", "heads"):
        for name, layer in getattr(stage, part).named_children():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                shape = layer.weight.shape[::-1]
                weights = generator.normal(0, 1.4 / math.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)
                layers[name] = {"weights": weights, "biases": generator.normal(0, 0.1, shape[-1]).astype(np.float32)}
            elif isinstance(layer, torch.nn.PReLU):
                layers[name] = {"alpha": generator.uniform(-0.3, 0.3, layer.num_parameters).astype(np.float32)}
    heads = sorted(n for n in layers if "-" in n)
    layers[heads[0]]["biases"] += SHY[len(heads), layers[heads[0]]["weights"].ndim]
    layers[heads[1]]["weights"] *= 0.2  # shifts are small
    return layers


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and numpy 1 wrote: texts and bytes alike as strings without an encoding."""

    def save_string(self, obj):
        data = obj if isinstance(obj, bytes) else obj.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(obj)

    def save_global(self, obj, name=None):
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string, type: save_global, types.FunctionType: save_global}


def save_npy(path, layers, pickler=Python2Pickler, protocol=2):
    """As ``numpy.save`` does: an object array around the dict."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        holder = np.empty((), object)
        holder[()] = layers
        pickler(file, protocol).dump(holder)


def write_detector(folder: Path) -> Path:
    """The three files of MTCNN."""
    folder.mkdir(parents=True)
    for i, (name, make) in enumerate(STAGES.items()):
        save_npy(folder / name, tensorflow_layers(make(), i))
    return folder


def write_folder(root: Path) -> Path:
    """The layout of the archive; the recogniser as torch 0.4 wrote it."""
    write_detector(root / "face_detection")
    (root / "face_recognition").mkdir()
    rows = [f"Person_{i:04}_[m.{i:x}],{i}" for i in range(PERSONS)]
    (root / LABELS).write_text("Labels,Index\n" + "\n".join(reversed(rows)) + "\n")
    torch.manual_seed(3)
    state = {f"model.{k}": v for k, v in Recogniser(PERSONS).state_dict().items() if not k.endswith("num_batches_tracked")}
    state["model.fc2.weight"] *= 30  # so that answers differ
    state["center_loss_criterion.centers"] = torch.zeros(PERSONS, 256)
    checkpoint = {"epoch": 3, "loss": 0.5, "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.1}]}, "model_state": state}
    torch.save(checkpoint, root / RECOGNISER, _use_new_zipfile_serialization=False)
    return root


def pictures():
    """Three of 160 px, not square: shapes of colour, so that windows differ."""
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (3, 12, 15, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(i).resize((160, 128), Image.Resampling.BICUBIC)) for i in small])
