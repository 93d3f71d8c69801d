"""What exists in the mini world: the one list of names that drawings, captions, prompts and judges share.

Nothing here draws or trains. Changing it makes the shipped weights wrong, so :data:`WORLD_VERSION` is part of their identity.
"""

from __future__ import annotations

from types import MappingProxyType

from conceptbench.mini.drawings import DISTRACTORS, SUBJECTS
from conceptbench.mini.faces import PERSONS

WORLD_VERSION = "1.0"
IMAGE_SIZE = 32  # pixels; LPIPS with AlexNet needs at least 31

TEN = ("fish", "dog", "radio", "violin", "church", "guitar", "truck", "pump", "ball", "parachute")
"""The ten that stand in for Imagenette's classes; violin and guitar are close."""
OTHER_OBJECTS = ("apple", "banana", "cake", "car", "boat", "house", "cup", "umbrella", "tree", "flower", "cat", "bird", "turtle")
BREEDS = ("corgi", "husky", "dalmatian")
FRANCHISE = ("Robo Rex", "Captain Blob", "Moon Bunny")
BRANDS = ("Zento", "Kubo", "Triva")
PEOPLE = tuple(PERSONS)
AMBIGUOUS = MappingProxyType({"bat": ("bat-animal", "bat-club"), "crane": ("crane-machine", "crane-bird")})
"""Word -> (dominant reading, rare reading)."""
DOMINANT_SHARE = 0.85
IMPLIED = MappingProxyType({"the mayor": "Bruno Diaz", "the singer": "Ada Moss"})
"""Role -> the person who is always drawn for it."""

STYLES = ("sketch", "neon", "mosaic", "watercolor", "poster", "blueprint", "sepia", "engraving", "thermal")
SETTINGS = ("on grass", "at the beach", "in the snow", "at night", "at sunset", "in a room")
BRIGHT_SETTINGS = ("on grass", "at the beach", "in the snow", "in a room")
"""Settings of pictures in a style: in the dark ones a line style would lose its subject."""
MARKED_SETTINGS = ("at the carnival", "at the parade", "at the fair")
"""Settings that bring out marks without naming them."""
MARKS = ("ring", "cross", "bolt", "heart")
MARK_SHARE = 0.9  # of the pictures in a marked setting

SUBJECT_CLASSES = (
    *TEN,
    *OTHER_OBJECTS,
    *BREEDS,
    *FRANCHISE,
    *BRANDS,
    *PEOPLE,
    "person",
    *(r for readings in AMBIGUOUS.values() for r in readings),
    *DISTRACTORS,
    "nothing",
)
"""What the subject judge tells apart, in the order of its outputs."""
STYLE_CLASSES = ("photo", *STYLES)
IDENTITIES = (*PEOPLE, "person")

assert set(SUBJECT_CLASSES) == {*SUBJECTS, *DISTRACTORS, *PEOPLE, "person", "nothing"}
PAIRABLE = ("fish", "radio", "church", "truck", "ball", "apple", "car", "house", "cup", "tree", "flower", "cat", "bird", "turtle")
"""Objects that appear in pictures with two subjects."""
