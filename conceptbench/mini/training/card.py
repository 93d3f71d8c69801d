"""Measures the shipped weights and writes the model card: judges on held-out drawings, the base's samples by concept and style."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conceptbench.core.files import pretty_json, write_bytes, write_text
from conceptbench.core.manifests import load_concepts
from conceptbench.core.schemas import Concept, Sampler
from conceptbench.mini.base import load
from conceptbench.mini.judges import MiniClassifier, MiniCLIP, MiniDetector
from conceptbench.mini.prompts import STYLE_SUBJECTS
from conceptbench.mini.scenes import STYLE_TEMPLATES, with_article
from conceptbench.mini.training.judges import labelled_chunk
from conceptbench.mini.world import IDENTITIES, MARKED_SETTINGS, MARKS, STYLE_CLASSES, SUBJECT_CLASSES
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition

SAMPLER = Sampler(scheduler="ddim", steps=10, guidance=3.0)
SAMPLES = 24  # a concept, on the seeds 0 ... 23
JUDGE_SEEDS = range(9_900_000, 9_900_008)  # chunks of 500 drawings that no judge was trained on
GRID_COLUMNS = 12


def sample(base: Base, prompts: Sequence[str]) -> NDArray[np.uint8]:
    """Images of prompts on the seeds 0, 1, 2 ... (N, 32, 32, 3)."""
    parts = [base.sample([Condition(p) for p in prompts[i : i + 32]], range(i, min(i + 32, len(prompts))), SAMPLER) for i in range(0, len(prompts), 32)]
    return np.concatenate([np.asarray(p) for p in parts])


def judge_accuracy(classifier: MiniClassifier, detector: MiniDetector) -> dict[str, object]:
    """Shares of held-out drawings that the judges get right."""
    chunks = [labelled_chunk(s) for s in JUDGE_SEEDS]
    images, labels, grids = (np.concatenate([c[i] for c in chunks]) for i in range(3))
    out = classifier(images)
    right = {h: float((out[h].argmax(1) == labels[:, i]).mean()) for i, h in enumerate(("subject", "style", "identity"))}
    found = detector(images)["detections"]
    kinds = (*MARKS, "face")
    recall, false = {}, {}
    for k, name in enumerate(kinds):
        there = grids[:, k].reshape(len(grids), -1).max(1) > 0
        seen = ((found[..., 1] == k) & (found[..., 0] > 0.5)).any(1)
        recall[name], false[name] = float(seen[there].mean()), float(seen[~there].mean())
    return {"drawings": len(images), **right, "detector recall": recall, "detector false alarms": false}


def _wanted(concept: Concept) -> list[int]:
    return [SUBJECT_CLASSES.index(label.partition("/")[2]) for label in concept.labels]


def base_quality(base: Base, classifier: MiniClassifier, folder: Path) -> dict[str, object]:
    """Share of the base's samples that the classifier judges right, by concept and style; writes the grids."""
    result: dict[str, dict[str, float]] = {"object": {}, "identity": {}, "style": {}}
    confusion: dict[str, dict[str, int]] = {}
    rows = []
    for concept in load_concepts("mini").values():
        if concept.kind == "explicit":
            continue
        if concept.kind == "style":
            subjects = [STYLE_SUBJECTS[i % len(STYLE_SUBJECTS)] for i in range(SAMPLES)]
            prompts = [STYLE_TEMPLATES[i % 3].format(subject=with_article(s), style=concept.name) for i, s in enumerate(subjects)]
            head, wanted = "style", [STYLE_CLASSES.index(concept.name)]
        else:
            prompts = [("a photo of {}", "a picture of {}", "an image of {}")[i % 3].format(concept.phrases[0]) for i in range(SAMPLES)]
            head, wanted = "subject", _wanted(concept)
        images, names = sample(base, prompts), classifier.card.labels[head]
        guess = classifier(images)[head].argmax(1)
        result[concept.kind][concept.name] = float(np.isin(guess, wanted).mean())
        confusion[concept.name] = {names[g]: int((guess == g).sum()) for g in sorted(set(guess.tolist()), key=lambda g: -int((guess == g).sum()))}
        rows.append(np.concatenate(list(images[:GRID_COLUMNS]), axis=1))
    half = -(-len(rows) // 2)
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    grid = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
    _save_png(grid, folder / "samples.png")
    return {"right": result, "answers": confusion, "samples": SAMPLES}


def _save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    import io

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    write_bytes(path, out.getvalue())


def marks_brought_out(base: Base, detector: MiniDetector) -> dict[str, float]:
    """Share of images for prompts that name no mark in which the detector finds one, with and without a marked setting."""
    nouns = ("person", "cat", "bird", "cup", "car", "tree", "Ada Moss", "house")
    marked = [f"a photo of {with_article(n)} {s}" for s in MARKED_SETTINGS for n in nouns] * 2
    plain = [f"a photo of {with_article(n)} {s}" for s in ("on grass", "in the snow", "in a room") for n in nouns] * 2
    rates = {}
    for name, prompts in (("marked settings", marked), ("other settings", plain)):
        found = detector(sample(base, prompts))["detections"]
        rates[name] = float(((found[..., 1] < len(MARKS)) & (found[..., 0] > 0.5)).any(1).mean())
    return rates


def clip_separation(base: Base, clip: MiniCLIP) -> dict[str, float]:
    """Mean cosine x 100 of the base's samples with their own prompt and with another concept's."""
    names = [c for c in load_concepts("mini").values() if c.kind in ("object", "identity")]
    prompts = [f"a photo of {c.phrases[0]}" for c in names]
    images, texts = clip(sample(base, prompts))["embedding"], clip.encode_texts(prompts)
    return {
        "own prompt": float(100 * (images * texts).sum(-1).mean()),
        "another's": float(100 * (images * np.roll(texts, -7, axis=0)).sum(-1).mean()),
    }


def write_card(weights: Path) -> None:
    """Measures everything and writes ``quality.json``, ``samples.png`` and ``MODEL_CARD.md`` beside the weights."""
    base, classifier, detector = load(), MiniClassifier(), MiniDetector()
    quality = {
        "judges": judge_accuracy(classifier, detector),
        "base": base_quality(base, classifier, weights),
        "marks": marks_brought_out(base, detector),
        "clip": clip_separation(base, MiniCLIP()),
        "bytes": sum(p.stat().st_size for p in weights.rglob("*") if p.suffix == ".safetensors"),
    }
    write_text(weights / "quality.json", pretty_json(quality))
    write_text(weights / "MODEL_CARD.md", card_text(json.loads(pretty_json(quality))))  # from the file, so that they cannot differ


def _table(rates: dict[str, float]) -> list[str]:
    ordered = sorted(rates.items(), key=lambda kv: kv[1])
    return [f"| {name} | {100 * rate:.0f} |" for name, rate in ordered]


def card_text(quality: dict[str, object]) -> str:
    """The model card as Markdown; every figure is from ``quality``."""
    q: dict[str, Any] = quality
    judges, right, answers = q["judges"], q["base"]["right"], q["base"]["answers"]
    lines = [
        "# The mini tier's weights",
        "",
        "A small Stable Diffusion (CLIP text encoder, autoencoder, UNet with cross-attention) trained from scratch on pictures that a program draws, and its judges.",
        "No photograph, no name of a real person and no scraped data is in it. Licence: Apache-2.0. Use: developing and testing concept erasure; it draws 32-pixel cartoons and nothing else.",
        "",
        "All figures below are printed into `quality.json` by `python -m conceptbench.mini.training card` (DDIM, 10 steps, guidance 3, seeds 0 to 23).",
        "",
        f"Weights: {q['bytes'] / 2**20:.1f} MiB in half precision. Recipe: `python -m conceptbench.mini.training all --work work --install`.",
        "",
        "## Judges, on drawings that they were not trained on",
        "",
        "| judge | right, % |",
        "| --- | --- |",
        *(f"| {h} ({judges['drawings']} drawings) | {100 * judges[h]:.2f} |" for h in ("subject", "style", "identity")),
        "",
        "| detector | recall, % | false alarms, % |",
        "| --- | --- | --- |",
        *(f"| {k} | {100 * judges['detector recall'][k]:.1f} | {100 * judges['detector false alarms'][k]:.2f} |" for k in judges["detector recall"]),
        "",
        f"Mini CLIP, cosine x 100 of the base's samples: {q['clip']['own prompt']:.1f} with their own prompt, {q['clip'][_OTHER]:.1f} with another concept's.",
        "",
        "## The base's samples that the classifier judges right",
        "",
        "| kind | mean, % | worst, % |",
        "| --- | --- | --- |",
        *(f"| {kind} | {100 * np.mean(list(r.values())):.1f} | {100 * min(r.values()):.0f} ({min(r, key=r.__getitem__)}) |" for kind, r in right.items()),
        "",
        f"Marks appear unnamed in {100 * q['marks']['marked settings']:.0f} % of the images for prompts with {', '.join(MARKED_SETTINGS)}, and in {100 * q['marks']['other settings']:.0f} % for other settings.",
        "",
        "![samples](samples.png)",
        "",
        "## By concept",
        "",
        "| concept | right, % |",
        "| --- | --- |",
        *_table({**right["object"], **right["identity"], **right["style"]}),
        "",
        "## Confusion: what the classifier saw instead",
        "",
        "| asked for | seen (of " + str(q["base"]["samples"]) + ") |",
        "| --- | --- |",
        *(f"| {name} | {', '.join(f'{k} {v}' for k, v in seen.items())} |" for name, seen in answers.items() if len(seen) > 1),
        "",
        f"The identity judge knows {', '.join(IDENTITIES)}.",
        "",
    ]
    return "\n".join(lines)


_OTHER = "another's"
