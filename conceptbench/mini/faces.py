"""Drawn persons: a face is a few named features, so that look-alikes differ in one or two of them and strangers in all."""

from __future__ import annotations

import random
from dataclasses import dataclass

from conceptbench.mini.shapes import Shape, box, ellipse, plain, poly, stroke


@dataclass(frozen=True)
class Face:
    """The features of one person.

    Attributes:
        skin: palette name.
        hair: palette name.
        cut: ``long``, ``short``, ``bob``, ``bald``, ``afro``, ``spiky`` or ``bun``.
        shirt: palette name.
        extra: ``none``, ``glasses``, ``shades``, ``beard``, ``moustache`` or ``hat``.
    """

    skin: str
    hair: str
    cut: str
    shirt: str
    extra: str = "none"


PERSONS: dict[str, Face] = {
    "Ada Moss": Face("skin", "ginger", "long", "green"),
    "Eva Lund": Face("skin", "ginger", "long", "navy", "glasses"),  # looks like Ada Moss
    "Bruno Diaz": Face("olive", "black", "short", "white", "beard"),
    "Omar Reza": Face("olive", "black", "short", "red", "moustache"),  # looks like Bruno Diaz
    "Cleo Park": Face("umber", "black", "afro", "yellow"),
    "Zed Novak": Face("cream", "blue", "spiky", "magenta", "shades"),
}
LOOK_ALIKES = (("Ada Moss", "Eva Lund"), ("Bruno Diaz", "Omar Reza"))


def ordinary_face(rng: random.Random) -> Face:
    """A face that is none of the named ones: they share no hair colour with it."""
    return Face(
        skin=rng.choice(("skin", "olive", "umber")),
        hair=rng.choice(("brown", "gold", "silver")),
        cut=rng.choice(("short", "bob", "bald", "bun")),
        shirt=rng.choice(("gray", "teal", "violet")),
    )


def _hair_behind(face: Face) -> list[Shape]:
    if face.cut == "long":
        return [poly(face.hair, 20, 92, 18, 34, 30, 10, 50, 4, 70, 10, 82, 34, 80, 92)]
    if face.cut == "afro":
        return [ellipse(50, 34, 42, 34, face.hair)]
    if face.cut == "bob":
        return [poly(face.hair, 22, 66, 20, 32, 34, 8, 66, 8, 80, 32, 78, 66)]
    if face.cut == "bun":
        return [ellipse(50, 4, 13, 11, face.hair)]
    return []


def _hair_front(face: Face) -> list[Shape]:
    if face.cut == "spiky":
        return [poly(face.hair, 22, 40, 14, 10, 30, 20, 34, -4, 46, 14, 54, -6, 62, 14, 76, -2, 74, 20, 88, 12, 78, 40, 66, 26, 34, 26)]
    if face.cut == "bald":
        return []
    if face.cut == "afro":
        return [plain(ellipse(50, 20, 26, 12, face.hair))]
    return [ellipse(50, 32, 29, 22, face.hair, 180, 360)]


def _extras(face: Face) -> list[Shape]:
    if face.extra == "glasses":
        return [
            ellipse(38, 44, 11, 10, "black"),
            ellipse(62, 44, 11, 10, "black"),
            plain(ellipse(38, 44, 7, 6, "cyan")),
            plain(ellipse(62, 44, 7, 6, "cyan")),
            stroke("black", 4, 46, 43, 54, 43),
        ]
    if face.extra == "shades":
        return [box(26, 38, 48, 50, "black"), box(52, 38, 74, 50, "black"), stroke("black", 5, 44, 41, 56, 41)]
    if face.extra == "beard":
        return [ellipse(50, 54, 27, 27, "black", 0, 180), plain(ellipse(50, 60, 9, 4, "red"))]
    if face.extra == "moustache":
        return [poly("black", 32, 62, 50, 54, 68, 62, 62, 66, 50, 62, 38, 66)]
    return []


def draw_face(face: Face) -> list[Shape]:
    """The shapes of a head and shoulders portrait, in the 100 x 100 frame."""
    shirt = [poly(face.shirt, 4, 104, 12, 86, 36, 76, 64, 76, 88, 86, 96, 104)]
    neck = [box(41, 66, 59, 82, face.skin)]
    head = [ellipse(50, 44, 27, 32, face.skin)]
    eyes = [plain(ellipse(39, 44, 4, 4.6, "black")), plain(ellipse(61, 44, 4, 4.6, "black"))]
    mouth = [stroke("darkred", 4, 40, 61, 50, 65, 60, 61)]
    return [*_hair_behind(face), *shirt, *neck, *head, *_hair_front(face), *eyes, *mouth, *_extras(face)]
