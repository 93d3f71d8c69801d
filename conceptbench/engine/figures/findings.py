"""What probes found, as figures: heat maps over images (arrays ``images``, ``mean``, ``heads``), curves (``curve``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from conceptbench.core.schemas import Concept, Task
from conceptbench.engine.figures import curves
from conceptbench.engine.figures.heatmaps import data_uri, heatmap_panel, resized
from conceptbench.engine.probing import read_finding
from conceptbench.engine.store import Store

MAPS = frozenset({"images", "mean", "heads"})
SIDE = 96  # px of a picture
CURVE = "curve"  # (K, steps): one curve a unit; the figure shows their mean
Found = Mapping[tuple[str, str], Sequence[tuple[str, Mapping[str, Any]]]]
"""(probe's protocol, concept) -> (model, arrays), in the order of the models."""


def found_in(findings: Sequence[Mapping[str, str]], task: Task, models: Sequence[tuple[str, str]], store: Store) -> Found:
    """What the store has of a task's findings.

    Args:
        findings: of the results: task, concept, model (hash), probe and key.
        task: whose.
        models: (name, hash) from first to last.
        store: of the run.
    """
    keys = {(f["probe"], f["concept"], f["model"]): f["key"] for f in findings if f["task"] == task.id}
    found: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for probe, concept in dict.fromkeys((p, c) for p, c, _ in keys):
        for who, model in models:
            key = keys.get((probe, concept, model))
            probed = read_finding(store, key) if key else None
            if probed is not None:
                found.setdefault((probe, concept), []).append((who, probed.arrays))
    return found


def heat_panels(found: Found, concepts: Mapping[str, Concept], prompts: Mapping[str, Sequence[str]]) -> list[Markup]:
    """The first prompt's maps of every concept.

    Args:
        found: of :func:`found_in`.
        concepts: by name; those of kind explicit are blurred.
        prompts: concept -> its prompts in the order of the probe's units.
    """
    panels = []
    for (_, concept), rows in found.items():
        there = [(who, arrays) for who, arrays in rows if arrays.keys() >= MAPS]
        if there:
            first = int(there[0][1]["index"][0]) if len(there[0][1].get("index", ())) else 0
            text = next(iter(prompts.get(concept, ())[first:]), "")
            panels.append(heatmap_panel(there, concept=concept, prompt=text, explicit=concepts[concept].kind == "explicit"))
    return [p for p in panels if p]


def picture_panels(found: Found, concepts: Mapping[str, Concept]) -> list[Markup]:
    """Images that a probe drew and that belong to no map: one line a model."""
    panels = []
    for (probe, concept), rows in found.items():
        lines = [_pictures(who, arrays["images"], f"{who}, {concept}") for who, arrays in rows if "images" in arrays and not arrays.keys() >= MAPS]
        if lines:
            strips = Markup('<span class="strips">{}</span>').format(Markup("").join(lines))
            if concepts[concept].kind == "explicit":
                box = Markup('<input type="checkbox" autocomplete="off" aria-label="show explicit images of {}">').format(concept)
                strips = Markup('<label class="veil">{}<span class="say">explicit: click to show or hide</span>{}</label>').format(box, strips)
            panels.append(Markup("<div><h4>{} <small>{}</small></h4>{}</div>").format(concept, probe.partition("@")[0], strips))
    return panels


def _pictures(who: str, images: NDArray[np.uint8], title: str) -> Markup:
    strip = np.concatenate([resized(i, SIDE) for i in images], 1)
    image = Markup('<img src="{}" width="{}" height="{}" alt="{}" title="{}">').format(data_uri(strip), strip.shape[1], SIDE, title, title)
    return Markup('<span class="who">{}</span><span class="clip">{}</span>').format(who, image)


def curve_panels(found: Found, palette: Mapping[str, str]) -> list[Markup]:
    """One panel a probe and concept with the mean curve of every model."""
    made = []
    for (probe, concept), rows in found.items():
        name = f"loss of {probe.partition('@')[0]}, {concept}"
        lines = {who: [{"step": i, name: float(v)} for i, v in enumerate(np.mean(arrays[CURVE], 0))] for who, arrays in rows if CURVE in arrays}
        made += [curves.panel_svg(panel, palette) for panel in curves.panels_of(lines)]
    return made
