"""Vector shapes of the drawn world: a picture is a list of filled polygons in a 100 x 100 frame.

Everything (ellipses, boxes, strokes) becomes a polygon, so that one affine map places, scales and tilts a subject.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Color = tuple[int, int, int]

PALETTE: dict[str, Color] = {
    "black": (28, 26, 32),
    "white": (250, 250, 246),
    "gray": (140, 144, 152),
    "silver": (200, 204, 212),
    "red": (214, 34, 40),
    "darkred": (136, 22, 34),
    "orange": (244, 128, 24),
    "yellow": (250, 214, 30),
    "gold": (212, 160, 30),
    "green": (40, 158, 60),
    "darkgreen": (18, 96, 48),
    "lime": (150, 214, 40),
    "teal": (16, 150, 150),
    "cyan": (40, 200, 224),
    "blue": (34, 88, 214),
    "navy": (26, 38, 104),
    "purple": (126, 48, 170),
    "violet": (170, 120, 230),
    "pink": (246, 128, 178),
    "magenta": (220, 30, 150),
    "brown": (126, 74, 34),
    "darkbrown": (78, 44, 22),
    "tan": (206, 160, 104),
    "cream": (250, 232, 190),
    "skin": (250, 214, 184),
    "olive": (206, 150, 104),
    "umber": (120, 74, 48),
    "ginger": (206, 84, 24),
}
OUTLINE: Color = (34, 28, 36)


@dataclass(frozen=True)
class Shape:
    """One filled polygon. Attributes: points in frame units (0..100, y down), RGB fill, whether it has an outline."""

    points: tuple[Point, ...]
    fill: Color
    outlined: bool = True


def ellipse(cx: float, cy: float, rx: float, ry: float, fill: str, start: float = 0, end: float = 360) -> Shape:
    """An ellipse, or the sector of it between two angles in degrees (0 is right, 90 is down)."""
    steps = max(6, round(28 * (end - start) / 360))
    arc = [math.radians(start + (end - start) * i / steps) for i in range(steps + (end - start < 360))]
    return Shape(tuple((cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in arc), PALETTE[fill])


def box(x0: float, y0: float, x1: float, y1: float, fill: str) -> Shape:
    """An axis-aligned rectangle."""
    return Shape(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), PALETTE[fill])


def poly(fill: str, *xy: float) -> Shape:
    """A polygon from a flat list of coordinates."""
    return Shape(tuple(zip(xy[::2], xy[1::2], strict=True)), PALETTE[fill])


def stroke(fill: str, width: float, *xy: float) -> Shape:
    """A thick open line through the given points, without an outline of its own."""
    pts = list(zip(xy[::2], xy[1::2], strict=True))
    left: list[Point] = []
    right: list[Point] = []
    for i, (x, y) in enumerate(pts):
        (ax, ay), (bx, by) = pts[max(i - 1, 0)], pts[min(i + 1, len(pts) - 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        nx, ny = -(by - ay) / length * width / 2, (bx - ax) / length * width / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return Shape(tuple(left + right[::-1]), PALETTE[fill], outlined=False)


def plain(shape: Shape) -> Shape:
    """The same shape without an outline."""
    return Shape(shape.points, shape.fill, outlined=False)


def star(cx: float, cy: float, radius: float, fill: str, points: int = 5, inner: float = 0.42) -> Shape:
    """A regular star."""
    tips = []
    for i in range(2 * points):
        r = radius if i % 2 == 0 else radius * inner
        a = math.pi * i / points - math.pi / 2
        tips.append((cx + r * math.cos(a), cy + r * math.sin(a)))
    return Shape(tuple(tips), PALETTE[fill])


def placed(shapes: Sequence[Shape], move: Callable[[Point], Point]) -> list[Shape]:
    """The shapes with every point moved by ``move``."""
    return [Shape(tuple(move(p) for p in s.points), s.fill, s.outlined) for s in shapes]
