"""Measures the shipped models of the digits and writes their card: ``python -m conceptbench.classes.training.card``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conceptbench.classes.bases import SHIPPED, WEIGHTS, digits_cvae, digits_ddpm
from conceptbench.classes.classifiers import CARD, probabilities
from conceptbench.classes.judges import ClassJudge, digits_classifier
from conceptbench.classes.training.run import DESCRIPTION
from conceptbench.core.files import write_bytes, write_text
from conceptbench.core.schemas import Sampler
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition

SAMPLES = 100  # a class
SAMPLERS = {"digits-cvae": Sampler(steps=1, guidance=1.0), "digits-ddpm": Sampler(scheduler="ddim", steps=20, guidance=2.0)}
COLUMNS, ZOOM = 20, 4  # of the picture: images a class, pixels a pixel


def sample(base: Base, name: str, count: int, sampler: Sampler) -> NDArray[np.uint8]:
    """Images of a class on the seeds 0 ... count - 1. (count, H, W, 3)."""
    return np.asarray(base.sample([Condition(name)] * count, range(count), sampler))


def shares(base: Base, judge: ClassJudge, sampler: Sampler, count: int = SAMPLES) -> dict[str, float]:
    """The share of samples of each class that the classifier gives to it."""
    drawn = {name: probabilities(judge.network, sample(base, name, count, sampler)).argmax(1) for name in base.classes}
    return {name: float((found == base.classes.index(name)).mean()) for name, found in drawn.items()}


def picture(base: Base, sampler: Sampler) -> NDArray[np.uint8]:
    """A row of samples for each class, enlarged."""
    framed = [np.pad(sample(base, name, COLUMNS, sampler), ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=64) for name in base.classes]
    return np.concatenate([np.concatenate(list(row), 1) for row in framed]).repeat(ZOOM, 0).repeat(ZOOM, 1)


def _description(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WEIGHTS / name / (CARD if name == "digits-classifier" else DESCRIPTION)).read_text())
    return found


def card_text(classifier: dict[str, Any], cvae: dict[str, Any], ddpm: dict[str, Any], rates: dict[str, dict[str, float]], size: int) -> str:
    """The card as Markdown.

    Args:
        classifier: its description.
        cvae: the autoencoder's.
        ddpm: the diffusion model's.
        rates: base -> class -> share of its samples that the classifier gives to it.
        size: bytes of all weights.
    """
    first, second = rates.values()
    lines = [
        "# The digits: models and classifier",
        "",
        "Small class-conditional models of scikit-learn's handwritten digits (8 x 8 pixels, the test part of UCI's Optical Recognition of Handwritten",
        "Digits, Alpaydin and Kaynak 1998, CC BY 4.0), for trying out the forgetting of classes without a download. Licence: Apache-2.0.",
        "",
        f"Weights: {size / 1e6:.2f} MB in half precision. They were trained on {cvae['images']} images on one CPU thread (`OMP_NUM_THREADS=1`) by",
        "",
        "```",
        *(f"conceptbench train {n.partition('-')[2]} digits --output conceptbench/classes/weights/{n}" for n in ("digits-classifier", *rates)),
        "python -m conceptbench.classes.training.card",
        "```",
        "",
        f"Figures, printed by these commands; the {cvae['test_images']} test images are every fifth of the data set:",
        "",
        "| what | figure |",
        "| --- | --- |",
        f"| classifier ({classifier['steps']} steps): accuracy on test images | {100 * classifier['accuracy']:.2f} % |",
        f"| cvae ({cvae['steps']} steps): -ELBO of test images | {cvae['negative_elbo']:.2f} nats an image |",
        f"| ddpm ({ddpm['steps']} steps): squared error of the noise, test images | {ddpm['noise_error']:.2f} an image of 64 values |",
        "",
        f"Samples ({SAMPLES} a class, seeds from 0) that the classifier gives to their class, %; ddpm: DDIM, 20 steps, guidance 2:",
        "",
        "| class | " + " | ".join(rates) + " |",
        "| --- | --- | --- |",
        *(f"| {name} | {100 * first[name]:.0f} | {100 * second[name]:.0f} |" for name in first),
        f"| mean | {100 * np.mean(list(first.values())):.1f} | {100 * np.mean(list(second.values())):.1f} |",
        "",
        "![samples](samples.png)",
        "",
        "Left: cvae, the means of the pixels. Right: ddpm.",
    ]
    return "\n".join(lines) + "\n"


def write_card(folder: Path) -> None:
    """Writes ``MODEL_CARD.md`` and ``samples.png``."""
    judge, bases = digits_classifier(), {"digits-cvae": digits_cvae(), "digits-ddpm": digits_ddpm()}
    rates = {name: shares(base, judge, SAMPLERS[name]) for name, base in bases.items()}
    size = sum(p.stat().st_size for n in SHIPPED for p in (WEIGHTS / n).rglob("*.safetensors"))
    classifier, cvae, ddpm = (_description(n) for n in ("digits-classifier", *bases))
    write_text(folder / "MODEL_CARD.md", card_text(classifier, cvae, ddpm, rates, size))
    grids = [picture(base, SAMPLERS[name]) for name, base in bases.items()]
    grids.insert(1, np.full((len(grids[0]), 4 * ZOOM, 3), 128, np.uint8))
    out = io.BytesIO()
    Image.fromarray(np.concatenate(grids, 1)).save(out, "PNG", optimize=True)
    write_bytes(folder / "samples.png", out.getvalue())


if __name__ == "__main__":
    write_card(Path(__file__).parents[1])
