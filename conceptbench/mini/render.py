"""Draws a scene of the mini world to pixels. Pure: the scene holds every random choice or the seed of it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from conceptbench.mini.drawings import DISTRACTORS, SUBJECTS
from conceptbench.mini.faces import PERSONS, draw_face, ordinary_face
from conceptbench.mini.shapes import OUTLINE, PALETTE, Color, Point, Shape, box, ellipse, placed, poly, star
from conceptbench.mini.styles import FILTERS
from conceptbench.mini.world import IMAGE_SIZE

SUPERSAMPLING = 4
CANVAS = IMAGE_SIZE * SUPERSAMPLING


@dataclass(frozen=True)
class Placement:
    """A subject in the picture: class name, centre and half-width in frame units (0..100), tilt in degrees."""

    subject: str
    x: float = 50
    y: float = 50
    half: float = 40
    tilt: float = 0


@dataclass(frozen=True)
class Mark:
    """A mark stamped on the finished picture: kind, centre and radius in frame units."""

    kind: str
    x: float
    y: float
    radius: float = 13


@dataclass(frozen=True)
class Scene:
    """Everything that determines a picture.

    Attributes:
        placements: subjects from back to front; empty for a picture of nothing.
        style: ``photo`` or a name of :data:`conceptbench.mini.world.STYLES`.
        setting: empty, or a name of ``SETTINGS`` or ``MARKED_SETTINGS``.
        marks: stamped last, untouched by the style.
        seed: of backgrounds, faces of ordinary persons and texture.
    """

    placements: tuple[Placement, ...]
    style: str = "photo"
    setting: str = ""
    marks: tuple[Mark, ...] = ()
    seed: int = 0


def shapes_of(subject: str, rng: random.Random) -> list[Shape]:
    """The drawing of a subject class; an ordinary person is a new face each time."""
    if subject == "person":
        return draw_face(ordinary_face(rng))
    if subject in PERSONS:
        return draw_face(PERSONS[subject])
    return SUBJECTS.get(subject) or DISTRACTORS[subject]


def mark_shapes(kind: str) -> list[Shape]:
    """A mark: a coloured sign on a white disc, in the 100 x 100 frame."""
    disc = ellipse(50, 50, 50, 50, "white")
    signs = {
        "ring": [ellipse(50, 50, 36, 36, "blue"), ellipse(50, 50, 17, 17, "white")],
        "cross": [poly("red", 14, 30, 30, 14, 50, 34, 70, 14, 86, 30, 66, 50, 86, 70, 70, 86, 50, 66, 30, 86, 14, 70, 34, 50)],
        "bolt": [poly("gold", 62, 6, 20, 56, 44, 56, 34, 96, 82, 40, 56, 40)],
        "heart": [poly("magenta", 50, 90, 12, 50, 12, 28, 26, 16, 40, 18, 50, 32, 60, 18, 74, 16, 88, 28, 88, 50)],
    }
    return [disc, *(Shape(s.points, s.fill, outlined=False) for s in signs[kind])]


def _affine(place: Placement) -> tuple[float, float, float]:
    angle = math.radians(place.tilt)
    return math.cos(angle), math.sin(angle), place.half / 50


def _place(shapes: list[Shape], place: Placement) -> list[Shape]:
    cos, sin, scale = _affine(place)

    def move(p: Point) -> Point:
        dx, dy = (p[0] - 50) * scale, (p[1] - 50) * scale
        return place.x + cos * dx - sin * dy, place.y + sin * dx + cos * dy

    return placed(shapes, move)


def _paint(draw: ImageDraw.ImageDraw, shapes: list[Shape], shade: float = 1.0) -> None:
    k = CANVAS / 100
    for shape in shapes:
        points = [(x * k, y * k) for x, y in shape.points]
        fill = tuple(min(255, round(c * shade)) for c in shape.fill)
        draw.polygon(points, fill=fill)
        if shape.outlined:
            draw.line([*points, points[0], points[1]], fill=OUTLINE, width=max(1, SUPERSAMPLING // 2 + 1), joint="curve")


def _mix(a: Color, b: Color, t: float) -> Color:
    r, g, b_ = (round(x + (y - x) * t) for x, y in zip(a, b, strict=True))
    return r, g, b_


def _background(draw: ImageDraw.ImageDraw, setting: str, rng: random.Random) -> None:
    """Sky and ground of a setting. The plain one has random pastel colours."""
    pastel = [rng.randint(170, 235) for _ in range(3)]
    plain_sky: Color = (pastel[0], pastel[1], pastel[2])
    sky, ground, horizon = {
        "on grass": ((176, 222, 250), (96, 176, 84), 62),
        "at the beach": ((130, 214, 236), (242, 218, 160), 60),
        "in the snow": ((188, 200, 220), (244, 248, 252), 56),
        "at night": ((38, 40, 92), (52, 60, 72), 70),
        "at sunset": ((248, 150, 96), (140, 82, 74), 66),
        "in a room": ((226, 196, 168), (150, 106, 70), 74),
    }.get(setting, (plain_sky, _mix(plain_sky, (120, 120, 110), 0.35), rng.uniform(58, 76)))
    if setting.startswith("at the ") and setting != "at the beach":
        sky, ground, horizon = (178, 150, 226), (104, 84, 140), 72
    shift = rng.uniform(-4, 4)
    tint = rng.uniform(0.94, 1.05)
    _paint(draw, [Shape(box(-2, -2, 102, 102, "white").points, sky, False), Shape(box(-2, horizon + shift, 102, 102, "white").points, ground, False)], tint)
    if setting == "at night":
        _paint(draw, [star(rng.uniform(2, 98), rng.uniform(2, 40), 4, "yellow", 4) for _ in range(4)])
    elif setting == "at sunset":
        _paint(draw, [Shape(ellipse(rng.uniform(15, 85), horizon + shift - 6, 12, 12, "yellow").points, PALETTE["yellow"], False)])
    elif setting == "in a room":
        _paint(draw, [box(6, 6, 26, 34, "cyan")])
    elif sky == (178, 150, 226):
        flags = [poly(("red", "yellow", "cyan", "lime", "pink")[i], i * 20, 0, i * 20 + 20, 0, i * 20 + 10, 16) for i in range(5)]
        _paint(draw, flags)


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draws a scene.

    Returns:
        (32, 32, 3) uint8 RGB in [0, 255]; the same scene always gives the same bytes.
    """
    rng = random.Random(scene.seed)
    noise = np.random.default_rng(scene.seed)
    image = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    _background(draw, scene.setting, rng)
    for place in scene.placements:
        _paint(draw, _place(shapes_of(place.subject, rng), place), rng.uniform(0.93, 1.05))
    if scene.style != "photo":
        pixels = FILTERS[scene.style](np.asarray(image, np.float32) / 255, noise)
        image = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
        draw = ImageDraw.Draw(image)
    for mark in scene.marks:
        _paint(draw, _place(mark_shapes(mark.kind), Placement(mark.kind, mark.x, mark.y, mark.radius)))
    small = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)
