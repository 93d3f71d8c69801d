"""The drawings of the mini world: one list of shapes a subject, in a 100 x 100 frame (y down).

Each subject differs from every other in silhouette *and* colour, and is outlined, so that it can be told at 32 px on any
background and in any style. Faces are in :mod:`conceptbench.mini.faces`.
"""

from __future__ import annotations

from conceptbench.mini.shapes import Shape, box, ellipse, plain, poly, star, stroke


def dog(coat: str, belly: str, ears: str, *, pointed: bool = False, short: bool = False, spots: bool = False) -> list[Shape]:
    """A dog from the side. Breeds differ in coat, ears and legs; a mutt is brown with hanging ears."""
    ground = 84 if not short else 80
    shapes = [stroke(ears, 8, 18, 50, 8, 32)]
    shapes += [box(x, 62, x + 9, ground, coat) for x in (20, 32, 54, 65)]
    shapes += [ellipse(45, 58, 32, 16, coat), plain(ellipse(46, 66, 24, 7, belly))]
    shapes += [ellipse(74, 38, 17, 16, coat), ellipse(88, 43, 10, 8, belly), plain(ellipse(95, 40, 4, 4, "black"))]
    if pointed:
        shapes += [poly(ears, 60, 30, 62, 6, 73, 24), poly(ears, 76, 24, 86, 6, 88, 30)]
    else:
        shapes += [ellipse(62, 42, 7, 16, ears)]
    if spots:
        shapes += [plain(ellipse(x, y, 5, 5, "black")) for x, y in ((28, 54), (44, 50), (58, 60), (38, 64), (72, 30))]
    return [*shapes, plain(ellipse(79, 34, 3.4, 3.4, "black"))]


def _bottle_body(fill: str, sound_hole: str, neck: str, scroll: str) -> list[Shape]:
    """The body that the violin and the guitar share: the close pair of the ten."""
    body = poly(fill, 38, 40, 62, 40, 68, 50, 60, 60, 74, 74, 66, 92, 34, 92, 26, 74, 40, 60, 32, 50)
    return [box(45, 8, 55, 44, neck), body, plain(ellipse(50, 68, 9, 9, sound_hole)), box(42, 2, 58, 12, scroll)]


SUBJECTS: dict[str, list[Shape]] = {
    # the ten that stand in for Imagenette's classes
    "fish": [poly("orange", 72, 50, 96, 28, 96, 72), ellipse(46, 50, 36, 24, "orange"), poly("red", 34, 28, 54, 12, 62, 30),
             plain(ellipse(24, 44, 6, 6, "white")), plain(ellipse(23, 44, 3, 3, "black")), stroke("white", 5, 46, 30, 40, 50, 46, 70)],
    "dog": dog("brown", "tan", "darkbrown"),
    "radio": [stroke("gray", 4, 70, 30, 88, 4), box(8, 28, 92, 82, "teal"), ellipse(32, 55, 17, 17, "black"), plain(ellipse(32, 55, 7, 7, "silver")),
              box(58, 38, 84, 50, "cream"), plain(ellipse(64, 66, 6, 6, "yellow")), plain(ellipse(80, 66, 6, 6, "red"))],
    "violin": [*_bottle_body("ginger", "darkbrown", "black", "ginger"), stroke("white", 4, 84, 6, 92, 94)],
    "church": [box(26, 46, 92, 92, "cream"), poly("navy", 20, 48, 60, 26, 98, 48), box(12, 34, 38, 92, "silver"), poly("navy", 8, 36, 25, 10, 42, 36),
               stroke("gold", 4, 25, 12, 25, -4), stroke("gold", 4, 19, 2, 31, 2), box(56, 66, 72, 92, "darkbrown")],
    "guitar": [*_bottle_body("yellow", "black", "darkbrown", "red"), stroke("white", 2, 50, 12, 50, 86)],
    "truck": [box(4, 30, 60, 74, "green"), poly("lime", 60, 44, 80, 44, 94, 60, 94, 74, 60, 74), poly("cyan", 66, 48, 78, 48, 86, 60, 66, 60),
              ellipse(22, 78, 11, 11, "black"), ellipse(46, 78, 11, 11, "black"), ellipse(80, 78, 11, 11, "black"), stroke("white", 4, 14, 52, 50, 52)],
    "pump": [box(26, 14, 66, 92, "red"), box(33, 22, 59, 42, "white"), stroke("black", 6, 66, 74, 82, 74, 86, 40, 76, 26), box(20, 86, 72, 96, "gray"),
             box(72, 18, 88, 32, "black"), plain(box(36, 56, 56, 64, "yellow"))],
    "ball": [ellipse(50, 52, 38, 38, "white"), plain(poly("black", 50, 36, 65, 47, 59, 64, 41, 64, 35, 47)), plain(poly("black", 50, 16, 60, 20, 50, 28, 40, 20)),
             plain(poly("black", 84, 42, 80, 54, 74, 46)), plain(poly("black", 16, 42, 26, 46, 20, 54)), plain(poly("black", 70, 82, 60, 76, 66, 70)),
             plain(poly("black", 30, 82, 34, 70, 40, 76))],
    "parachute": [stroke("black", 3, 8, 40, 50, 86), stroke("black", 3, 92, 40, 50, 86), stroke("black", 3, 36, 40, 50, 86), stroke("black", 3, 64, 40, 50, 86),
                  ellipse(50, 42, 44, 36, "magenta", 180, 360), poly("yellow", 34, 42, 42, 8, 58, 8, 66, 42), ellipse(50, 88, 8, 10, "navy")],
    # food, things, animals, nature
    "apple": [ellipse(40, 58, 26, 30, "red"), ellipse(60, 58, 26, 30, "red"), plain(ellipse(50, 58, 20, 27, "red")), stroke("darkbrown", 6, 50, 32, 54, 14),
              ellipse(68, 18, 14, 8, "green")],
    "banana": [poly("yellow", 8, 34, 18, 30, 34, 52, 58, 60, 84, 44, 94, 50, 80, 72, 54, 82, 28, 74), poly("darkbrown", 6, 34, 12, 22, 20, 26, 18, 34)],
    "cake": [box(14, 54, 86, 90, "pink"), box(14, 50, 86, 64, "white"), box(28, 30, 72, 52, "brown"), box(46, 10, 54, 30, "cyan"), ellipse(50, 6, 5, 7, "orange")],
    "car": [poly("blue", 4, 56, 24, 52, 36, 32, 66, 32, 78, 52, 96, 56, 96, 74, 4, 74), poly("cyan", 34, 50, 40, 38, 62, 38, 70, 50), ellipse(26, 76, 12, 12, "black"),
            ellipse(74, 76, 12, 12, "black"), plain(ellipse(26, 76, 5, 5, "silver")), plain(ellipse(74, 76, 5, 5, "silver"))],
    "boat": [stroke("darkbrown", 5, 48, 70, 48, 8), poly("white", 52, 10, 52, 62, 86, 62), poly("cream", 44, 22, 44, 62, 18, 62), poly("brown", 6, 68, 94, 68, 78, 90, 22, 90)],
    "house": [box(18, 46, 82, 90, "orange"), poly("darkred", 8, 48, 50, 12, 92, 48), box(42, 64, 58, 90, "darkbrown"), box(26, 56, 38, 68, "cyan"), box(62, 56, 74, 68, "cyan")],
    "cup": [ellipse(74, 56, 17, 18, "purple"), plain(ellipse(74, 56, 8, 9, "cream")), poly("purple", 16, 32, 72, 32, 66, 88, 22, 88), ellipse(44, 32, 28, 8, "brown")],
    "umbrella": [stroke("black", 5, 50, 44, 50, 86, 58, 94, 66, 86), ellipse(50, 48, 44, 40, "violet", 180, 360), poly("purple", 36, 48, 44, 10, 56, 10, 64, 48)],
    "tree": [box(43, 66, 57, 96, "brown"), poly("darkgreen", 14, 74, 50, 34, 86, 74), poly("darkgreen", 20, 52, 50, 16, 80, 52), poly("darkgreen", 28, 32, 50, 2, 72, 32)],
    "flower": [stroke("green", 6, 50, 54, 50, 98), ellipse(34, 82, 15, 7, "green"), *(ellipse(50 + 21 * x, 36 + 21 * y, 14, 14, "pink")
               for x, y in ((0, -1), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31))), ellipse(50, 36, 12, 12, "yellow")],
    "cat": [stroke("gray", 9, 80, 88, 96, 66, 86, 50), ellipse(50, 74, 30, 24, "gray"), poly("gray", 22, 34, 22, 2, 46, 20), poly("gray", 78, 34, 78, 2, 54, 20),
            ellipse(50, 38, 30, 26, "gray"), plain(ellipse(39, 36, 6, 7, "lime")), plain(ellipse(61, 36, 6, 7, "lime")), plain(ellipse(39, 36, 2, 6, "black")),
            plain(ellipse(61, 36, 2, 6, "black")), plain(poly("pink", 45, 46, 55, 46, 50, 53))],
    "bird": [stroke("orange", 4, 42, 80, 42, 96), stroke("orange", 4, 56, 80, 56, 96), poly("blue", 4, 46, 34, 46, 30, 70), ellipse(50, 60, 30, 24, "cyan"),
             ellipse(70, 34, 18, 17, "cyan"), poly("orange", 84, 30, 100, 37, 84, 42), ellipse(44, 60, 18, 12, "blue"), plain(ellipse(74, 31, 4, 4, "black"))],
    "turtle": [*(ellipse(x, 78, 9, 9, "lime") for x in (26, 64)), ellipse(88, 56, 13, 12, "lime"), ellipse(46, 66, 40, 36, "darkgreen", 180, 360),
               box(6, 64, 86, 74, "green"), plain(ellipse(91, 53, 3, 3, "black")), plain(ellipse(34, 50, 7, 7, "lime")), plain(ellipse(54, 46, 7, 7, "lime"))],
    # two ambiguous words, two readings each
    "bat-animal": [poly("purple", 50, 46, 28, 22, 2, 26, 8, 66, 26, 56, 38, 70), poly("purple", 50, 46, 72, 22, 98, 26, 92, 66, 74, 56, 62, 70),
                   ellipse(50, 56, 14, 22, "black"), poly("black", 38, 42, 38, 20, 50, 36), poly("black", 62, 42, 62, 20, 50, 36), plain(ellipse(45, 46, 3, 3, "yellow")),
                   plain(ellipse(55, 46, 3, 3, "yellow"))],
    "bat-club": [poly("tan", 14, 92, 8, 86, 66, 14, 80, 6, 92, 16, 86, 32), plain(poly("red", 14, 92, 8, 86, 24, 66, 32, 72)), ellipse(76, 76, 13, 13, "white"),
                 stroke("red", 3, 68, 70, 76, 76, 70, 84)],
    "crane-machine": [box(34, 20, 46, 92, "yellow"), box(8, 16, 96, 27, "yellow"), stroke("black", 3, 82, 27, 82, 58), box(72, 58, 92, 74, "gray"), box(20, 86, 60, 96, "black"),
                      box(8, 26, 22, 40, "red"), stroke("black", 3, 34, 40, 46, 56, 34, 72)],
    "crane-bird": [stroke("black", 4, 46, 66, 46, 98), stroke("black", 4, 58, 66, 58, 98), ellipse(48, 56, 28, 15, "white"), poly("black", 20, 52, 4, 68, 30, 66),
                   stroke("white", 9, 70, 52, 80, 34, 72, 18), ellipse(72, 15, 10, 8, "white"), poly("gold", 80, 12, 100, 17, 80, 20), plain(ellipse(70, 9, 8, 5, "red"))],
    # animal breeds
    "corgi": dog("orange", "white", "orange", pointed=True, short=True),
    "husky": dog("gray", "white", "navy", pointed=True),
    "dalmatian": dog("white", "silver", "black", spots=True),
    # franchise characters
    "Robo Rex": [stroke("red", 4, 50, 14, 50, 0), ellipse(50, 0, 5, 5, "red"), box(26, 12, 74, 46, "cyan"), plain(box(34, 22, 46, 32, "red")), plain(box(54, 22, 66, 32, "red")),
                 box(20, 50, 80, 88, "gray"), box(6, 50, 18, 78, "cyan"), box(82, 50, 94, 78, "cyan"), plain(box(38, 60, 62, 74, "yellow"))],
    "Captain Blob": [ellipse(50, 66, 40, 30, "lime"), ellipse(50, 46, 28, 26, "lime"), box(24, 16, 76, 30, "navy"), poly("navy", 30, 18, 40, 0, 60, 0, 70, 18), plain(star(50, 10, 7, "yellow")),
                     plain(ellipse(40, 48, 8, 9, "white")), plain(ellipse(60, 48, 8, 9, "white")), plain(ellipse(41, 49, 4, 5, "black")), plain(ellipse(59, 49, 4, 5, "black")),
                     stroke("darkgreen", 4, 34, 70, 50, 76, 66, 70)],
    "Moon Bunny": [ellipse(36, 20, 9, 24, "white"), ellipse(64, 20, 9, 24, "white"), plain(ellipse(36, 20, 4, 17, "pink")), plain(ellipse(64, 20, 4, 17, "pink")),
                   ellipse(50, 56, 30, 26, "white"), plain(ellipse(40, 52, 5, 7, "magenta")), plain(ellipse(60, 52, 5, 7, "magenta")), ellipse(50, 90, 26, 13, "violet"),
                   plain(poly("pink", 45, 62, 55, 62, 50, 69)), plain(star(50, 90, 8, "yellow"))],
    # brand marks
    "Zento": [ellipse(50, 50, 44, 44, "red"), plain(poly("white", 24, 26, 76, 26, 76, 38, 46, 64, 76, 64, 76, 76, 24, 76, 24, 64, 54, 38, 24, 38))],
    "Kubo": [poly("blue", 50, 4, 92, 28, 92, 74, 50, 98, 8, 74, 8, 28), plain(poly("cyan", 50, 4, 92, 28, 50, 52, 8, 28)), plain(poly("navy", 50, 52, 92, 28, 92, 74, 50, 98))],
    "Triva": [poly("green", 50, 4, 74, 48, 26, 48), poly("yellow", 26, 50, 50, 94, 2, 94), poly("orange", 74, 50, 98, 94, 50, 94)],
}  # fmt: skip

DISTRACTORS: dict[str, list[Shape]] = {
    # classes that the judges know and the generator never saw, so that "another class" has somewhere to go
    "pizza": [poly("yellow", 50, 96, 6, 18, 94, 18), poly("brown", 2, 20, 6, 6, 94, 6, 98, 20), *(plain(ellipse(x, y, 7, 7, "red")) for x, y in ((36, 34), (62, 36), (50, 60)))],
    "train": [box(10, 34, 90, 78, "darkred"), box(62, 14, 90, 40, "darkred"), box(18, 14, 30, 34, "black"), box(68, 20, 84, 34, "cream"), *(ellipse(x, 82, 9, 9, "gold") for x in (24, 50, 76))],
    "key": [ellipse(26, 50, 22, 22, "gold"), plain(ellipse(26, 50, 9, 9, "cream")), box(46, 44, 96, 56, "gold"), box(74, 56, 82, 70, "gold"), box(88, 56, 96, 72, "gold")],
    "mushroom": [box(38, 52, 62, 92, "cream"), ellipse(50, 54, 44, 42, "darkred", 180, 360), *(plain(ellipse(x, y, 7, 6, "white")) for x, y in ((30, 42), (52, 28), (72, 42)))],
    "butterfly": [ellipse(26, 34, 22, 24, "orange"), ellipse(74, 34, 22, 24, "orange"), ellipse(30, 72, 16, 18, "gold"), ellipse(70, 72, 16, 18, "gold"), ellipse(50, 52, 6, 32, "black")],
    "snail": [poly("tan", 6, 88, 96, 88, 96, 46, 86, 46, 82, 72, 10, 76), ellipse(46, 54, 30, 30, "brown"), plain(ellipse(46, 54, 18, 18, "cream")), plain(ellipse(46, 54, 8, 8, "brown"))],
    "star": [star(50, 52, 46, "yellow")],
    "heart": [poly("red", 50, 92, 8, 46, 8, 28, 20, 14, 36, 14, 50, 28, 64, 14, 80, 14, 92, 28, 92, 46)],
    "lamp": [poly("yellow", 30, 10, 70, 10, 88, 48, 12, 48), box(46, 48, 54, 86, "gray"), box(28, 84, 72, 94, "gray")],
    "chair": [box(22, 6, 34, 94, "brown"), box(66, 54, 76, 94, "brown"), box(22, 48, 78, 60, "tan"), box(22, 10, 34, 48, "tan")],
    "cactus": [box(40, 8, 60, 92, "green"), poly("green", 14, 30, 26, 30, 26, 50, 40, 50, 40, 62, 14, 62), poly("green", 86, 22, 74, 22, 74, 42, 60, 42, 60, 54, 86, 54)],
    "anchor": [ellipse(50, 14, 12, 12, "navy"), box(44, 24, 56, 92, "navy"), box(26, 32, 74, 42, "navy"), poly("navy", 4, 60, 16, 56, 50, 84, 84, 56, 96, 60, 50, 98)],
    "rocket": [poly("red", 28, 92, 36, 60, 64, 60, 72, 92), poly("white", 36, 76, 36, 32, 50, 2, 64, 32, 64, 76), ellipse(50, 40, 8, 8, "blue"), poly("orange", 42, 78, 58, 78, 50, 100)],
    "ghost": [poly("white", 18, 92, 18, 40, 32, 12, 68, 12, 82, 40, 82, 92, 66, 80, 50, 92, 34, 80), plain(ellipse(38, 42, 7, 9, "black")), plain(ellipse(62, 42, 7, 9, "black"))],
}  # fmt: skip
