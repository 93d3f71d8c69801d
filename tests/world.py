"""A tiny suite with its concepts, prompts and judges, for tests of the engine on random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from conceptbench.core.judge import JudgeCard
from conceptbench.core.registry import JUDGES

CONCEPTS = [
    {"name": "ab", "kind": "object", "phrases": ["ab"], "anchor": "cd", "labels": ["subject/red"]},
    {"name": "ef", "kind": "object", "phrases": ["ef"], "labels": ["subject/green"]},
    {"name": "gh", "kind": "object", "phrases": ["gh"], "labels": ["subject/blue"]},
]
PROMPTS = 4


class ColourJudge:
    """Sees the strongest colour channel; counts how many images it looked at."""

    looked = 0

    def __init__(self) -> None:
        self.card = JudgeCard("colour", "classifier", "c" * 64, "here", "none", "none", {"subject": ("red", "green", "blue", "nothing")})

    def __call__(self, images):
        ColourJudge.looked += len(images)
        means = images.reshape(len(images), -1, 3).mean(1) / 255
        nothing = np.where(images.reshape(len(images), -1).std(1, keepdims=True) < 1, 2.0, 0.0)
        return {"subject": np.concatenate([means, nothing], 1).astype(np.float32)}


class LengthJudge:
    """Directions in a plane: an image's by its brightness, a text's by its length."""

    def __init__(self) -> None:
        self.card = JudgeCard("length", "image-text", "d" * 64, "here", "none", "none", {})

    def __call__(self, images):
        return {"embedding": self._directions(images.reshape(len(images), -1).mean(1) / 255)}

    def encode_texts(self, texts):
        return self._directions(np.array([len(t) for t in texts]) / 10)

    def _directions(self, angles):
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


class DistanceJudge:
    """The mean distance of two images' pixels."""

    def __init__(self) -> None:
        self.card = JudgeCard("distance", "distance", "e" * 64, "here", "none", "none", {})

    def __call__(self, images, partners):
        return {"distance": np.abs(images.astype(int) - partners).reshape(len(images), -1).mean(1) / 255}


for name, judge in (("colour", ColourJudge), ("length", LengthJudge), ("distance", DistanceJudge)):
    JUDGES.add(name, judge)


def write_suite(folder: Path, prompts: dict[str, list[str]] | None = None, **changes) -> Path:
    """A suite file with its concepts and prompts beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "concepts.yaml").write_text(yaml.safe_dump(CONCEPTS))
    rows = ["prompt_id,text,concept,split"]
    texts = prompts or {c["name"]: [f"{c['name']} {'abcdefgh'[i]}" for i in range(PROMPTS)] for c in CONCEPTS}
    for concept, lines in texts.items():
        rows += [
            f"{concept}-{split[0]}{i},{line}{' x' if split == 'development' else ''},{concept},{split}"
            for split in ("heldout", "development")
            for i, line in enumerate(lines)
        ]
    (folder / "prompts.csv").write_text("\n".join(rows) + "\n")
    suite = {
        "name": "tiny",
        "version": "1.0",
        "title": "tiny",
        "base": "tiny",
        "sampler": {"steps": 2, "guidance": 3.0},
        "seed": 7,
        "concepts": str(folder / "concepts.yaml"),
        "tasks": [
            {"id": "one", "targets": ["ab"], "retained": ["ef"], "prompts": {"set": str(folder / "prompts.csv")}},
            {"id": "two", "targets": ["ef"], "retained": ["ab", "gh"], "prompts": {"set": str(folder / "prompts.csv")}},
        ],
        "metrics": [
            {"metric": "esr", "judge": "colour"},
            {"metric": "psr", "judge": "colour"},
            {"metric": "nothing", "judge": "colour"},
            {"metric": "clip_score", "judge": "length"},
            {"metric": "lpips", "judge": "distance"},
            {"metric": "weight_change"},
            {"metric": "cost", "options": {"of": "seconds"}},
            {"metric": "cost", "options": {"of": "network_evaluations"}},
        ],
        "erasers": ["negative-prompt", "uce"],
        "headline": {"erased": "esr-1", "kept": "psr-1"},
        **changes,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    return folder / "suite.yaml"
