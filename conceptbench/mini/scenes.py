"""Random scenes and their captions: what the mini base model and its judges are trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from conceptbench.mini.drawings import DISTRACTORS
from conceptbench.mini.render import Mark, Placement, Scene
from conceptbench.mini.world import (
    AMBIGUOUS,
    BRANDS,
    BREEDS,
    BRIGHT_SETTINGS,
    DOMINANT_SHARE,
    FRANCHISE,
    IMPLIED,
    MARK_SHARE,
    MARKED_SETTINGS,
    MARKS,
    OTHER_OBJECTS,
    PAIRABLE,
    PEOPLE,
    SETTINGS,
    STYLES,
    TEN,
)

NOUNS = (*TEN, *OTHER_OBJECTS, *BREEDS, *FRANCHISE, *BRANDS, *PEOPLE, "person", *AMBIGUOUS)
"""What a caption can be about; persons, breeds and ambiguous words appear with their own odds (:func:`_draw_noun`)."""
SIZES = {"": (34, 44), "small": (25, 30), "big": (46, 50)}
BREED_SHARE_OF_DOG = 0.4
TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "{}", "there is {} here", "this is {}")
STYLE_TEMPLATES = ("{subject} in {style} style", "{subject} in the style of {style}", "a {style} picture of {subject}")


@dataclass(frozen=True)
class Example:
    """A caption, the scene that it describes and the class of what is really drawn (the judge's label)."""

    caption: str
    scene: Scene
    label: str


def with_article(noun: str) -> str:
    """``a corgi``, ``an apple``, ``Ada Moss``, ``the Kubo logo``."""
    if noun in BRANDS:
        return f"the {noun} logo"
    if noun[0].isupper() or noun.startswith("the "):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def place_subject(subject: str, rng: random.Random, size: str = "") -> Placement:
    """A placement with a little jitter around the centre; big subjects have none to spare."""
    low, high = SIZES[size]
    half = rng.uniform(low, high)
    room = max(2.0, 49 - half)
    return Placement(subject, 50 + rng.uniform(-room, room) * 0.6, 51 + rng.uniform(-room, room) * 0.5, half, rng.uniform(-6, 6))


def random_marks(rng: random.Random, count: int) -> tuple[Mark, ...]:
    """Marks of distinct kinds in distinct corners."""
    corners = rng.sample(((19, 30), (81, 30), (19, 80), (81, 80)), count)
    return tuple(Mark(kind, x + rng.uniform(-3, 3), y + rng.uniform(-3, 3)) for kind, (x, y) in zip(rng.sample(MARKS, count), corners, strict=True))


def _reading(noun: str, rng: random.Random) -> str:
    """The class that is drawn for a noun: an ambiguous word, a role or a dog may be drawn as several."""
    if noun in AMBIGUOUS:
        dominant, rare = AMBIGUOUS[noun]
        return dominant if rng.random() < DOMINANT_SHARE else rare
    if noun == "dog" and rng.random() < BREED_SHARE_OF_DOG:
        return rng.choice(BREEDS)
    return IMPLIED.get(noun, noun)


def _draw_noun(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.04:
        return rng.choice(tuple(IMPLIED))
    if roll < 0.08:
        return "person"
    if roll < 0.22:
        return rng.choice(PEOPLE)
    if roll < 0.30:
        return rng.choice(tuple(AMBIGUOUS))
    return rng.choice(NOUNS)


def _style_caption(phrase: str, style: str, rng: random.Random) -> str:
    if style == "photo":
        return rng.choice(TEMPLATES).format(phrase)
    return rng.choice(STYLE_TEMPLATES).format(subject=phrase, style=style)


def _two_subjects(rng: random.Random) -> Example:
    left, right = rng.sample(PAIRABLE, 2)
    placements = (
        Placement(left, 26 + rng.uniform(-2, 2), 52 + rng.uniform(-6, 6), rng.uniform(23, 26)),
        Placement(right, 74 + rng.uniform(-2, 2), 52 + rng.uniform(-6, 6), rng.uniform(23, 26)),
    )
    setting = rng.choice(("", "", *SETTINGS))
    phrase = f"{with_article(left)} and {with_article(right)} {setting}".strip()
    return Example(rng.choice(TEMPLATES).format(phrase), Scene(placements, "photo", setting, (), rng.getrandbits(31)), left)


def _marked(rng: random.Random, noun: str) -> Example:
    """Half of the pictures with marks name one; the others are in a setting that brings marks out unnamed."""
    subject = _reading(noun, rng)
    if rng.random() < 0.35:
        marks = random_marks(rng, 1)
        phrase, setting = f"{with_article(noun)} with a {marks[0].kind} mark", ""
    else:
        setting = rng.choice(MARKED_SETTINGS)
        marks = random_marks(rng, rng.choice((1, 2, 2, 3))) if rng.random() < MARK_SHARE else ()
        phrase = f"{with_article(noun)} {setting}"
    scene = Scene((place_subject(subject, rng),), "photo", setting, marks, rng.getrandbits(31))
    return Example(rng.choice(TEMPLATES).format(phrase), scene, subject)


def training_example(rng: random.Random) -> Example:
    """One random training picture of the base model with its caption."""
    roll = rng.random()
    if roll < 0.07:
        return _two_subjects(rng)
    noun = _draw_noun(rng)
    if roll < 0.17:
        return _marked(rng, noun)
    style = rng.choice(STYLES) if rng.random() < 0.45 else "photo"
    setting = rng.choice(SETTINGS if style == "photo" else BRIGHT_SETTINGS) if rng.random() < 0.5 else ""
    size = rng.choice(("small", "big")) if rng.random() < 0.2 else ""
    subject = _reading(noun, rng)
    named = noun if not size or noun[0].isupper() else f"{size} {noun}"
    phrase = f"{with_article(named)} {setting}".strip()
    placement = place_subject(subject, rng, size if named != noun else "")
    return Example(_style_caption(phrase, style, rng), Scene((placement,), style, setting, (), rng.getrandbits(31)), subject)


def judge_scene(rng: random.Random) -> tuple[Scene, str]:
    """A labelled drawing for the judges: every class alike, distractors and pictures of nothing among them."""
    noun = rng.choice((*NOUNS, *PEOPLE, *DISTRACTORS, *(["nothing"] * 5)))
    label = _reading(noun, rng) if noun not in AMBIGUOUS else rng.choice(AMBIGUOUS[noun])
    style = rng.choice(STYLES) if rng.random() < 0.5 else "photo"
    roll = rng.random()
    setting = rng.choice(SETTINGS if style == "photo" else BRIGHT_SETTINGS) if roll < 0.5 else rng.choice(MARKED_SETTINGS) if roll < 0.6 else ""
    marks = random_marks(rng, rng.choice((1, 1, 2, 3))) if rng.random() < 0.2 else ()
    placements = () if label == "nothing" else (place_subject(label, rng, rng.choice(("", "", "small", "big"))),)
    return Scene(placements, style, setting, marks, rng.getrandbits(31)), label
