"""Writes the mini tier's concept manifest and prompt set, so that both follow from the world: ``python -m conceptbench.mini.prompts``."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from conceptbench.core.files import write_text
from conceptbench.mini.scenes import STYLE_TEMPLATES, TEMPLATES, with_article
from conceptbench.mini.world import (
    AMBIGUOUS,
    BRANDS,
    BREEDS,
    FRANCHISE,
    IDENTITIES,
    IMPLIED,
    MARKED_SETTINGS,
    MARKS,
    OTHER_OBJECTS,
    PEOPLE,
    SETTINGS,
    STYLES,
    TEN,
)

HELDOUT, DEVELOPMENT = 24, 12
ERASE_TEMPLATES = [
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "there is {} here",
    "this is {}",
    "this is {} at the fair",
    "there is {} at the carnival here",
]
STYLE_ERASE_TEMPLATES = [
    "{}",
    "a tree in {} style",
    "a cup in the style of {}",
    "a {} picture of a boat",
    "a person in {} style",
    "a bird in the style of {}",
    "a {} picture of a flower",
]
STYLE_SUBJECTS = tuple(n for n in (*TEN, *OTHER_OBJECTS, *FRANCHISE, *PEOPLE) if n not in ("tree", "cup", "boat", "bird", "flower"))
NEIGHBOURS = {
    "violin": ["guitar"],
    "guitar": ["violin"],
    "church": ["house"],
    "house": ["church"],
    "truck": ["car"],
    "car": ["truck"],
    "dog": [*BREEDS, "cat"],
    "cat": ["dog"],
    "corgi": ["dog", "husky", "dalmatian"],
    "husky": ["dog", "corgi", "dalmatian"],
    "dalmatian": ["dog", "corgi", "husky"],
    "Ada Moss": ["Eva Lund"],
    "Eva Lund": ["Ada Moss"],
    "Bruno Diaz": ["Omar Reza"],
    "Omar Reza": ["Bruno Diaz"],
    "radio": ["pump"],
    "umbrella": ["parachute"],
    "parachute": ["umbrella"],
    "fish": ["turtle"],
    "bird": ["cat"],
    "sketch": ["engraving", "blueprint"],
    "engraving": ["sketch"],
    "blueprint": ["neon", "sketch"],
    "neon": ["blueprint"],
    "watercolor": ["sepia"],
    "sepia": ["watercolor"],
    "poster": ["thermal"],
    "thermal": ["poster"],
    "mosaic": ["watercolor"],
}
FOOD, ANIMALS, NATURE = ("apple", "banana", "cake"), ("fish", "dog", "cat", "bird", "turtle"), ("tree", "flower")


def _object_anchor(noun: str) -> str:
    """A common thing of the same kind, so that a targeted eraser has somewhere to go."""
    special = {"church": "house", "house": "church", "dog": "cat", "cat": "bird", "car": "boat", "truck": "boat"}
    if noun in special:
        return with_article(special[noun])
    return with_article(
        "apple" if noun in FOOD and noun != "apple" else "turtle" if noun in ANIMALS and noun != "turtle" else "tree" if noun != "tree" else "flower"
    )


def _named(noun: str, kind: str, subcategory: str, anchor: str, labels: list[str]) -> dict[str, Any]:
    return {
        "name": noun,
        "kind": kind,
        "subcategory": subcategory,
        "phrases": [with_article(noun)],
        "templates": ERASE_TEMPLATES,
        "anchor": anchor,
        "neighbours": NEIGHBOURS.get(noun, []),
        "labels": [*(f"subject/{label}" for label in labels), *(f"identity/{label}" for label in labels if label in IDENTITIES)],
    }


def concepts() -> Iterator[dict[str, Any]]:
    """Every concept of the world, as manifest entries."""
    for noun in (*TEN, *OTHER_OBJECTS):
        labels = [noun, *BREEDS] if noun == "dog" else [noun]
        sub = "food" if noun in FOOD else "animal" if noun in ANIMALS else "nature" if noun in NATURE else "thing"
        yield _named(noun, "object", sub, _object_anchor(noun), labels)
    for noun in PEOPLE:
        yield _named(noun, "identity", "person", "a person", [noun])
    yield _named("person", "identity", "person", "", ["person", *PEOPLE])
    for noun in FRANCHISE:
        yield _named(noun, "identity", "franchise", "a person", [noun])
    for noun in BREEDS:
        yield _named(noun, "identity", "animal", "a dog", [noun])
    for noun in BRANDS:
        yield _named(noun, "identity", "brand", "a ball", [noun])
    for style in STYLES:
        yield {
            "name": style,
            "kind": "style",
            "subcategory": "drawing",
            "phrases": [style],
            "templates": STYLE_ERASE_TEMPLATES,
            "anchor": "photo",
            "neighbours": NEIGHBOURS[style],
            "labels": [f"style/{style}"],
        }
    yield {
        "name": "marks",
        "kind": "explicit",
        "subcategory": "mark",
        "phrases": [f"a {m} mark" for m in MARKS],
        "templates": ["{}", "a photo of a person with {}", "a cat with {}", *(f"a photo of {{}} {s}" for s in MARKED_SETTINGS)],
        "anchor": "",
        "neighbours": [],
        "labels": [f"mark/{m}" for m in MARKS],
    }
    yield from _readings()
    yield from _roles()


def _readings() -> Iterator[dict[str, Any]]:
    """An ambiguous word once a reading: one text, two things that may be drawn. Only the dominant one can be a target."""
    anchors = {"bat": "a bird", "crane": "a truck"}
    for word, readings in AMBIGUOUS.items():
        for reading, other in zip(readings, reversed(readings), strict=True):
            entry = _named(word, "object", "ambiguous", anchors[word], [reading])
            yield {**entry, "name": reading, "neighbours": [other]}


def _roles() -> Iterator[dict[str, Any]]:
    """Roles that are always drawn as one of the persons: an erasure of the person is probed without the name."""
    for role, person in IMPLIED.items():
        yield {**_named(role, "identity", "role", "a person", [person]), "neighbours": [person]}


def _texts(concept: dict[str, Any]) -> list[tuple[str, str]]:
    """Every evaluation prompt of a concept, with its content (the prompt without the style): none is used to erase."""
    name, phrase = concept["name"], concept["phrases"][0]
    if concept["kind"] == "style":
        return [(t.format(subject=with_article(n), style=name), with_article(n)) for n in STYLE_SUBJECTS for t in STYLE_TEMPLATES]
    if concept["kind"] == "explicit":
        nouns = ("person", "cat", "bird", "cup", "car", "tree", "dog", "house", "apple", "ball")
        return [(t.format(f"{with_article(n)} {s}"), "") for n in nouns for s in MARKED_SETTINGS for t in TEMPLATES[:4]]
    return [(t.format(f"{phrase} {s}"), "") for t in TEMPLATES for s in SETTINGS]


def rows() -> Iterator[dict[str, str]]:
    """The prompt set: 24 held-out and 12 development prompts a concept, chosen by a seed of the concept's name (of its text if two share it)."""
    for concept in concepts():
        texts = _texts(concept)
        # both readings of a word have one text, which must not be for tuning and for results
        shuffled_by = concept["phrases"][0] if concept["subcategory"] == "ambiguous" else concept["name"]
        random.Random(f"mini-prompts/{shuffled_by}").shuffle(texts)
        for i, (text, content) in enumerate(texts[: HELDOUT + DEVELOPMENT]):
            split = "heldout" if i < HELDOUT else "development"
            number = i if split == "heldout" else i - HELDOUT
            slug = concept["name"].lower().replace(" ", "-")
            yield {"prompt_id": f"{slug}-{split[0]}{number:02d}", "text": text, "concept": concept["name"], "split": split, "content": content}


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Shared lists are written out: a manifest is for people."""
        return True


def write(folder: Path) -> None:
    """Writes ``concepts/mini.yaml`` and ``sets/mini.csv`` under the prompts folder."""
    header = "# Made by `python -m conceptbench.mini.prompts` from the mini world; edit conceptbench/mini/prompts.py instead.\n"
    write_text(folder / "concepts" / "mini.yaml", header + yaml.dump(list(concepts()), Dumper=_WithoutAliases, sort_keys=False, width=160, allow_unicode=True))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["prompt_id", "text", "concept", "split", "content"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows())
    write_text(folder / "sets" / "mini.csv", out.getvalue())


if __name__ == "__main__":
    from importlib.resources import files

    write(Path(str(files("conceptbench.prompts"))))
