"""``report.html``: one self-contained page made from a run's ``results.json`` and the images in the store."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image

from conceptbench.core.errors import StoreError, UserInputError
from conceptbench.core.files import write_text
from conceptbench.core.manifests import load_concepts
from conceptbench.core.schemas import Suite
from conceptbench.engine.plan import BASE, ImageSpec, images_of
from conceptbench.engine.scatter import Point, Range, scatter_svg
from conceptbench.engine.store import Store
from conceptbench.models.base import BaseInfo

TARGET_TILES, RETAINED_TILES = 10, 5
TILE = 64  # pixels of a tile in the page; small images are enlarged without smoothing
MISSING = 110  # grey of an image that is not there


@dataclass(frozen=True)
class Strip:
    """A row of images in the page: whose they are, as a data URI, and the prompts for the tooltip."""

    eraser: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Gallery:
    """The strips of one concept: the same prompts and seeds for the base and every eraser."""

    concept: str
    role: str
    explicit: bool
    prompts: tuple[str, ...]
    strips: tuple[Strip, ...]


def _tile(pixels: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if pixels is None:
        return np.full((TILE, TILE, 3), MISSING, np.uint8)
    small = max(pixels.shape[:2]) <= TILE
    return np.asarray(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS))


def _data_uri(tiles: Sequence[NDArray[np.uint8]]) -> str:
    out = io.BytesIO()
    Image.fromarray(np.concatenate(tiles, axis=1)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _read(store: Store, key: str) -> NDArray[np.uint8] | None:
    try:
        return store.read_image(key)
    except StoreError:
        return None


def _galleries(suite: Suite, task_id: str, info: BaseInfo, models: Sequence[tuple[str, str]], store: Store, limit: int | None) -> list[Gallery]:
    task = next(t for t in suite.tasks if t.id == task_id)
    concepts = load_concepts(suite.concepts)
    by_concept: dict[str, list[ImageSpec]] = {}
    for spec in images_of(suite, task, limit):
        by_concept.setdefault(spec.concept, []).append(spec)
    galleries = []
    for name, specs in by_concept.items():
        shown = specs[: TARGET_TILES if specs[0].role == "target" else RETAINED_TILES]
        strips = [Strip(label, _data_uri([_tile(_read(store, s.key(info, model))) for s in shown]), f"{label}: {name}") for label, model in models]
        galleries.append(Gallery(name, specs[0].role, concepts[name].kind == "explicit", tuple(s.condition.text for s in shown), tuple(strips)))
    return galleries


def _points(rows: Sequence[dict[str, Any]], suite: Suite, task: str) -> list[Point]:
    def overall(who: str, metric: str, role: str) -> dict[str, Any] | None:
        return next((r for r in rows if (r["task"], r["who"], r["metric"], r["role"], r["concept"]) == (task, who, metric, role, "*")), None)

    points = []
    for eraser in dict.fromkeys(r["who"] for r in rows if r["task"] == task):
        kept, erased = overall(eraser, suite.headline.kept, "retained"), overall(eraser, suite.headline.erased, "target")
        if kept and erased and kept["value"] is not None and erased["value"] is not None:
            points.append(Point(eraser, *_upwards(kept), *_upwards(erased)))
    return points


def _upwards(row: dict[str, Any]) -> tuple[float, Range]:
    """A rate and its interval so that more is better: one minus it where less is."""
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    if row["better"] != "lower":
        return value, (low, high)
    return 1 - value, (None, None) if low is None else (1 - high, 1 - low)


def _axis(rows: Sequence[dict[str, Any]], metric: str) -> str:
    falls = any(r["metric"] == metric and r["better"] == "lower" for r in rows)
    return f"100 - {metric}" if falls else metric


def show_number(value: float | None, unit: str) -> str:
    """A value for people: rates in per cent."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if unit == "rate" else f"{value:.2f}"


def row_names(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What each (eraser, preset) is called: the eraser's name, with its preset where several of one eraser are shown."""
    distinct = list(dict.fromkeys(pairs))
    several = {e for e, _ in distinct if sum(other == e for other, _ in distinct) > 1}
    return {(e, p): f"{e}:{p}" if e in several else e for e, p in distinct}


def _pair(spec: str) -> tuple[str, str]:
    eraser, _, preset = spec.partition(":")
    return eraser, preset


def report_from_results(folder: Path, store: Store | None = None) -> Path:
    """Writes ``report.html`` into a run's folder.

    Args:
        folder: it holds ``results.json``.
        store: with the run's images; None for the one that the run used. Missing images are shown as grey tiles.

    Returns:
        The page's path.

    Raises:
        UserInputError: there are no readable results.
    """
    path = folder / "results.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        canonical = document["canonical"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserInputError(f"no readable results in {folder}: {error}", "give the folder that `conceptbench run --output` wrote") from error
    store = store or Store(Path(document["store"]))
    suite = Suite.model_validate(canonical["suite"])
    names = row_names([(r["eraser"], r["preset"]) for r in canonical["rows"]])
    rows: list[dict[str, Any]] = [{**r, "who": names[r["eraser"], r["preset"]]} for r in canonical["rows"]]
    info = BaseInfo(canonical["base"]["id"], canonical["base"]["family"], canonical["base"]["revision"], canonical["base"]["components"])
    tasks = []
    for task in suite.tasks:
        models = [(BASE, BASE), *((names[_pair(e["spec"])], e["weights_sha256"]) for e in canonical["erasures"] if e["task"] == task.id)]
        tasks.append(
            {
                "id": task.id,
                "targets": task.targets,
                "retained": task.retained,
                "scatter": scatter_svg(_points(rows, suite, task.id), _axis(rows, suite.headline.kept), _axis(rows, suite.headline.erased)),
                "galleries": _galleries(suite, task.id, info, models, store, canonical["limited"]),
                "rows": [r for r in rows if r["task"] == task.id],
            }
        )
    environment = Environment(loader=PackageLoader("conceptbench.engine"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = show_number
    html = environment.get_template("report.html.j2").render(suite=suite, tasks=tasks, document=document, canonical=canonical, tile=TILE)
    write_text(folder / "report.html", html)
    return folder / "report.html"
