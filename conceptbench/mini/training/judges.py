"""Stages ``classifier``, ``detector`` and ``clip``: the judges, trained on drawings with seeds of their own."""

from __future__ import annotations

import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from conceptbench.mini.faces import PERSONS
from conceptbench.mini.networks import DETECTIONS, GRID, Classifier, Detector
from conceptbench.mini.render import Scene, render
from conceptbench.mini.scenes import judge_scene
from conceptbench.mini.training.data import pictures, to_float
from conceptbench.mini.training.loop import Schedule, fit
from conceptbench.mini.training.text import LENGTH
from conceptbench.mini.world import IDENTITIES, IMAGE_SIZE, STYLE_CLASSES, SUBJECT_CLASSES

SEED = 21
PICTURES = 40_000
CLIP_PICTURES = 30_000
CHUNK = 500
BATCH = 64
CLASSIFIER_SCHEDULE = Schedule(steps=2600, lr=2e-3, weight_decay=0.02)
DETECTOR_SCHEDULE = Schedule(steps=1500, lr=2e-3, weight_decay=0.01)
CLIP_SCHEDULE = Schedule(steps=1000, lr=1e-3, weight_decay=0.05, replanned=(900, 1500))
CLIP_BATCH = 128


@dataclass(frozen=True)
class Labelled:
    """Labelled drawings: images (N, 3, 32, 32) uint8, class indices (N,), and detector targets (N, 8, 8, 8).

    The first five target planes are 1 in the cell that holds a centre of the kind; the last three are the box there.
    """

    images: Tensor
    subject: Tensor
    style: Tensor
    identity: Tensor
    grids: Tensor


def detection_targets(scene: Scene) -> NDArray[np.float32]:
    """The detector's target planes (8, 8, 8) for a scene; coordinates as in :class:`Detector`."""
    planes = np.zeros((len(DETECTIONS) + 3, GRID, GRID), np.float32)
    objects = [(m.kind, m.x, m.y, m.radius) for m in scene.marks]
    for place in scene.placements:
        if place.subject in PERSONS or place.subject == "person":
            up = place.half / 50 * 6  # the head's centre lies 6 frame units above the portrait's
            objects.append(("face", place.x + math.sin(math.radians(place.tilt)) * up, place.y - math.cos(math.radians(place.tilt)) * up, place.half * 0.62))
    for kind, x, y, radius in objects:
        gx, gy = min(max(x / 100, 0), 0.999) * GRID, min(max(y / 100, 0), 0.999) * GRID
        planes[DETECTIONS.index(kind), int(gy), int(gx)] = 1
        planes[len(DETECTIONS) :, int(gy), int(gx)] = (gx % 1, gy % 1, radius / 100)
    return planes


def labelled_chunk(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]:
    """500 labelled drawings: images, (subject, style, identity) indices, detector targets."""
    rng = random.Random(seed)
    images, labels, grids = [], [], []
    for _ in range(CHUNK):
        scene, label = judge_scene(rng)
        images.append(render(scene))
        identity = IDENTITIES.index(label) if label in IDENTITIES else len(IDENTITIES)
        labels.append((SUBJECT_CLASSES.index(label), STYLE_CLASSES.index(scene.style), identity))
        grids.append(detection_targets(scene))
    return np.stack(images), np.array(labels, np.int64), np.stack(grids)


def labelled(work: Path, count: int, seed: int) -> Labelled:
    """Draws (or reads) labelled pictures."""
    path = work / f"labelled-{seed}-{count}.npz"
    if not path.exists():
        with ProcessPoolExecutor() as pool:
            chunks = list(pool.map(labelled_chunk, [seed * 100_000 + i for i in range(count // CHUNK)]))
        np.savez(
            path, images=np.concatenate([c[0] for c in chunks]), labels=np.concatenate([c[1] for c in chunks]), grids=np.concatenate([c[2] for c in chunks])
        )
    with np.load(path) as file:
        images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).contiguous()
        subject, style, identity = torch.from_numpy(file["labels"]).unbind(1)
        return Labelled(images, subject, style, identity, torch.from_numpy(file["grids"]))


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and shifts of tone, so that a slightly soft picture keeps its class. x: (N, 3, H, W) in [-1, 1]."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    n = len(x)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x.lerp(soft, draw(n, 1, 1, 1) * (draw(n, 1, 1, 1) < 0.6))
    x = x * (0.85 + 0.3 * draw(n, 1, 1, 1)) + (draw(n, 3, 1, 1) - 0.5) * 0.2
    x = x + torch.randn(x.shape, generator=generator) * 0.12 * draw(n, 1, 1, 1)
    return x.clamp(-1, 1)


def broken(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures of nothing made from drawings: shuffled patches, heavy blur, colour clouds and noise. Same shape as x."""
    n, _, size, _ = x.shape
    kind = torch.randint(4, (n, 1, 1, 1), generator=generator)
    patch = 4 if torch.rand(1, generator=generator) < 0.5 else 8
    cells = size // patch
    tiles = x.reshape(n, 3, cells, patch, cells, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, cells * cells, 3, patch, patch)
    order = torch.rand(n, cells * cells, generator=generator).argsort(1)
    tiles = tiles.gather(1, order[..., None, None, None].expand_as(tiles))
    shuffled = tiles.reshape(n, cells, cells, 3, patch, patch).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
    blurred = F.interpolate(F.adaptive_avg_pool2d(x, 3), size, mode="bicubic", align_corners=False)
    clouds = F.interpolate(torch.rand(n, 3, 6, 6, generator=generator) * 2 - 1, size, mode="bicubic", align_corners=False)
    noise = torch.randn(x.shape, generator=generator) * 0.6
    return torch.where(kind == 0, shuffled, torch.where(kind == 1, blurred, torch.where(kind == 2, clouds, noise))).clamp(-1, 1)


def _save(state: dict[str, Tensor], path: Path) -> Path:
    save_file({k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}, path)
    return path


def train_classifier(work: Path, steps: int | None = None) -> Path:
    """Trains the subject, style and identity judge. Returns its weights file."""
    torch.manual_seed(SEED)
    data, model = labelled(work, PICTURES, SEED), Classifier()
    nothing = SUBJECT_CLASSES.index("nothing")

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.images), (BATCH,), generator=generator)
        x, subject, identity = augment(to_float(data.images[rows]), generator), data.subject[rows].clone(), data.identity[rows].clone()
        ruined = BATCH // 16
        x[:ruined] = broken(x[:ruined], generator)
        subject[:ruined], identity[:ruined] = nothing, len(IDENTITIES)
        out = model(x)
        style = F.cross_entropy(out["style"][ruined:], data.style[rows][ruined:])
        return F.cross_entropy(out["subject"], subject, label_smoothing=0.02) + 0.5 * style + 0.5 * F.cross_entropy(out["identity"], identity)

    schedule = CLASSIFIER_SCHEDULE if steps is None else Schedule(steps, CLASSIFIER_SCHEDULE.lr)
    return _save(fit(model, loss, schedule, state=work / "classifier.pt", seed=SEED, name="classifier"), work / "classifier.safetensors")


def train_detector(work: Path, steps: int | None = None) -> Path:
    """Trains the mark detector and face finder. Returns its weights file."""
    torch.manual_seed(SEED + 1)
    data, model = labelled(work, PICTURES, SEED), Detector()
    kinds = len(DETECTIONS)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.images), (BATCH,), generator=generator)
        x, target = augment(to_float(data.images[rows]), generator), data.grids[rows].clone()
        ruined = BATCH // 16
        x[:ruined], target[:ruined] = broken(x[:ruined], generator), 0
        logits, boxes = model(x)
        p, y = torch.sigmoid(logits), target[:, :kinds]
        focal = F.binary_cross_entropy_with_logits(logits, y, reduction="none") * torch.where(y > 0, (1 - p) ** 2, p**2)
        held = y.amax(1, keepdim=True)
        return (focal.sum() * 4 + (held * (boxes - target[:, kinds:]).abs()).sum()) / BATCH

    schedule = DETECTOR_SCHEDULE if steps is None else Schedule(steps, DETECTOR_SCHEDULE.lr)
    return _save(fit(model, loss, schedule, state=work / "detector.pt", seed=SEED + 1, name="detector"), work / "detector.safetensors")


def clip_config(vocabulary: int, eos: int) -> dict[str, object]:
    """The open_clip configuration of the mini CLIP."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 4, "width": 128, "head_width": 32, "patch_size": 4},
            "text_cfg": {
                "context_length": LENGTH,
                "vocab_size": vocabulary,
                "width": 128,
                "heads": 4,
                "layers": 2,
                "hf_tokenizer_name": "local",
                "pool_type": "eos",
                "eos_id": eos,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def train_clip(work: Path, steps: int | None = None) -> Path:
    """Trains the image-text judge, an open_clip model in a folder that ``local-dir:`` reads. Returns the folder."""
    from transformers import CLIPTokenizer

    torch.manual_seed(SEED + 2)
    data = pictures(work, CLIP_PICTURES, SEED)
    folder = work / "clip"
    folder.mkdir(exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(clip_config(len(tokenizer), tokenizer.eos_token_id), indent=1))
    model: nn.Module = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    ids = tokenizer(data.captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(ids), (CLIP_BATCH,), generator=generator)
        image, text, scale = model(augment(to_float(data.images[rows]), generator), ids[rows])
        logits, target = scale * image @ text.T, torch.arange(CLIP_BATCH)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    schedule = CLIP_SCHEDULE if steps is None else Schedule(steps, CLIP_SCHEDULE.lr, weight_decay=CLIP_SCHEDULE.weight_decay)
    _save(fit(model, loss, schedule, state=work / "clip.pt", seed=SEED + 2, name="clip"), folder / "open_clip_model.safetensors")
    return folder
