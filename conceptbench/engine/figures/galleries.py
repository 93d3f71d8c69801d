"""Strips of images: for each concept the same prompts and noise, one strip a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conceptbench.core.results import RowRole
from conceptbench.core.schemas import Concept
from conceptbench.engine.figures.tiles import Picture, picture
from conceptbench.engine.images import ImageSpec
from conceptbench.engine.records import Record
from conceptbench.engine.store import Store
from conceptbench.models.info import BaseInfo

TARGET_TILES, RETAINED_TILES = 10, 5


@dataclass(frozen=True)
class Strip:
    """A row of images: whose they are, and what to read where they are not seen."""

    eraser: str
    picture: Picture
    alt: str


@dataclass(frozen=True)
class Gallery:
    """The strips of one concept."""

    concept: str
    role: str
    explicit: bool
    prompts: tuple[str, ...]
    strips: tuple[Strip, ...]


class Keys:
    """Where an image of a run is in the store: as its record says, else as the plan would name it now.

    Records win because keys depend on the versions of libraries, and a page may be made elsewhere than the run.

    Args:
        info: the base.
        names: (eraser, preset) -> what the model is called.
        records: of the run; may be empty.
    """

    def __init__(self, info: BaseInfo, names: Mapping[tuple[str, str], str], records: Sequence[Record]) -> None:
        self.info = info
        self._recorded = {(names.get((r.eraser, r.preset), r.eraser), r.pair): r.image for r in records}

    def of(self, spec: ImageSpec, who: str, weights: str) -> str:
        """The image's key.

        Args:
            spec: the image.
            who: the model's name.
            weights: the hash of its weights, or ``base``.
        """
        pair = (spec.task, spec.concept, spec.prompt_id, spec.number, spec.seed)
        return self._recorded.get((who, pair)) or spec.key(self.info, weights)


def galleries(
    specs: Sequence[ImageSpec],
    concepts: Mapping[str, Concept],
    models: Sequence[tuple[str, str]],
    keys: Keys,
    store: Store,
    roles: Mapping[str, RowRole],
) -> list[Gallery]:
    """The galleries of a task, targets first.

    Args:
        specs: its images.
        concepts: by name; only the kind matters: explicit images are hidden until they are asked for.
        models: (name, hash of the weights), the base first.
        keys: finds images.
        store: holds them.
        roles: concept -> role of its rows.
    """
    by_concept: dict[str, list[ImageSpec]] = {}
    for spec in specs:
        by_concept.setdefault(spec.concept, []).append(spec)
    made = []
    for name, all_of_it in by_concept.items():
        role = roles[name]
        shown = all_of_it[: TARGET_TILES if role == "target" else RETAINED_TILES]
        strips = [Strip(who, picture(store, [keys.of(s, who, weights) for s in shown]), f"{len(shown)} images of {who}: {name}") for who, weights in models]
        made.append(Gallery(name, role, concepts[name].kind == "explicit", tuple(s.condition.text for s in shown), tuple(strips)))
    return made
