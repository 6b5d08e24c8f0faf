"""How each thing of a drawn scene looks: a few ellipses, polygons and lines in the thing's own frame."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SKIN: tuple[Colour, ...] = ((245, 208, 176), (224, 172, 124), (168, 112, 72), (104, 66, 44))
HAIR: tuple[Colour, ...] = ((52, 38, 32), (120, 78, 40), (206, 158, 72), (30, 28, 30))


@dataclass(frozen=True, slots=True)
class Pen:
    """Draws in the frame of one thing: u to the right from its middle, v up from its base, both in heights.

    edge: colour of the outline around every filled form; None draws none.
    """

    draw: ImageDraw.ImageDraw
    pixels: int  # edge of the square picture
    x: float
    base: float
    height: float
    flip: bool = False
    edge: Colour | None = None

    def at(self, u: float, v: float) -> Point:
        """Pixel of (u, v)."""
        side = -u if self.flip else u
        return (self.x + side * self.height) * self.pixels, (self.base - v * self.height) * self.pixels

    def ellipse(self, u: float, v: float, ru: float, rv: float, fill: Colour) -> None:
        """An ellipse with centre (u, v)."""
        x, y = self.at(u, v)
        rx, ry = ru * self.height * self.pixels, rv * self.height * self.pixels
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill, outline=self.edge, width=self._edge())

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        corners = [self.at(*point) for point in points]
        self.draw.polygon(corners, fill=fill, outline=self.edge, width=self._edge())

    def box(self, u0: float, v0: float, u1: float, v1: float, fill: Colour) -> None:
        """A rectangle between two corners."""
        self.polygon([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """A line of round joints; width in heights."""
        thick = max(round(width * self.height * self.pixels), 1)
        self.draw.line([self.at(*point) for point in points], fill=fill, width=thick, joint="curve")

    def _edge(self) -> int:
        return max(self.pixels // 190, 1) if self.edge else 0


@dataclass(frozen=True, slots=True)
class Paint:
    """The colours of one thing: its own, what it holds, and those that its kind brings along."""

    main: Colour
    held: Colour
    skin: Colour
    hair: Colour
    dark: Colour  # trousers, tyres, windows by day
    glow: Colour  # lamps, fire, windows by night


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    red, green, blue = (min(int(part * factor), 255) for part in colour)
    return red, green, blue


def person(pen: Pen, paint: Paint, kind: str, pose: str, held: str) -> None:
    """A man, woman, boy or girl; women and girls in a dress, boys in shorts."""
    dress, child = kind in ("woman", "girl"), kind in ("boy", "girl")
    stride = 0.2 if pose == "running" else 0.07
    leg = paint.skin if dress or kind == "boy" else paint.dark
    for side in (-1, 1):
        pen.line([(side * 0.04, 0.42), (side * stride, 0.02)], leg, 0.085)
        pen.line([(side * stride - 0.02, 0.015), (side * stride + 0.05, 0.015)], paint.dark, 0.04)
    if kind == "boy":
        pen.box(-0.11, 0.26, 0.11, 0.44, paint.dark)
    _arms(pen, paint, pose, held)
    if dress:
        pen.polygon([(-0.08, 0.76), (0.08, 0.76), (0.21, 0.26), (-0.21, 0.26)], paint.main)
    else:
        pen.polygon([(-0.13, 0.77), (0.13, 0.77), (0.12, 0.38), (-0.12, 0.38)], paint.main)
    _head(replace(pen, edge=None), paint, 0.13 if child else 0.105, long_hair=dress)


def _head(pen: Pen, paint: Paint, radius: float, long_hair: bool) -> None:
    middle = 0.74 + radius
    if long_hair:
        pen.ellipse(0, middle - 0.03, radius * 1.25, radius * 1.35, paint.hair)
        pen.ellipse(0, middle - 0.02, radius * 0.85, radius * 0.9, paint.skin)
    else:
        pen.ellipse(0, middle + 0.03, radius * 1.02, radius * 1.0, paint.hair)
        pen.ellipse(0, middle - 0.02, radius * 0.95, radius * 0.88, paint.skin)
    for eye in (-0.35, 0.35):
        pen.ellipse(eye * radius, middle, radius * 0.12, radius * 0.14, (40, 34, 34))


def _arms(pen: Pen, paint: Paint, pose: str, held: str) -> None:
    hand = (0.26, 1.0) if pose == "waving" else (0.27, 0.62) if pose == "running" or held else (0.19, 0.42)
    other = (-0.27, 0.56) if pose == "running" else (-0.19, 0.42)
    for end in (hand, other):
        side = 1 if end[0] > 0 else -1
        pen.line([(side * 0.11, 0.73), end], paint.skin, 0.06)
    if held == "balloon":
        pen.line([hand, (0.32, 1.0)], paint.dark, 0.015)
        pen.ellipse(0.32, 1.12, 0.15, 0.17, paint.held)
    elif held == "umbrella":
        pen.line([hand, (0.24, 1.12)], paint.dark, 0.025)
        pen.polygon([(-0.22, 1.04), (-0.1, 1.2), (0.16, 1.28), (0.42, 1.2), (0.56, 1.04)], paint.held)
    elif held == "lantern":
        pen.line([hand, (0.27, 0.54)], paint.dark, 0.02)
        pen.ellipse(0.27, 0.44, 0.09, 0.11, paint.held)
        pen.ellipse(0.27, 0.44, 0.045, 0.06, paint.glow)


def car(pen: Pen, paint: Paint) -> None:
    """A car seen from the side, bonnet to the right; headlights that glow by night."""
    pen.polygon([(-0.75, 0.55), (-0.45, 0.98), (0.35, 0.98), (0.7, 0.55)], paint.main)
    pen.polygon([(-0.55, 0.58), (-0.36, 0.87), (-0.06, 0.87), (-0.06, 0.58)], paint.dark)
    pen.polygon([(0.04, 0.58), (0.04, 0.87), (0.28, 0.87), (0.5, 0.58)], paint.dark)
    pen.polygon([(-1.1, 0.2), (-1.1, 0.56), (0.8, 0.56), (1.1, 0.46), (1.1, 0.2)], paint.main)
    pen.ellipse(1.02, 0.38, 0.08, 0.08, paint.glow)
    for wheel in (-0.62, 0.62):
        pen.ellipse(wheel, 0.2, 0.22, 0.22, (34, 34, 38))
        pen.ellipse(wheel, 0.2, 0.1, 0.1, (150, 150, 156))


def house(pen: Pen, paint: Paint) -> None:
    """A house with a gable roof, a door and two windows."""
    pen.box(0.2, 0.7, 0.32, 0.98, (120, 84, 72))
    pen.box(-0.42, 0, 0.42, 0.56, paint.main)
    pen.polygon([(-0.54, 0.54), (0.54, 0.54), (0, 1.0)], (146, 74, 56))
    pen.box(-0.09, 0, 0.09, 0.32, (108, 70, 44))
    for side in (-1, 1):
        pen.box(side * 0.17, 0.24, side * 0.34, 0.42, paint.glow)


def tree(pen: Pen, paint: Paint) -> None:
    """A broad tree; its crown has the colour."""
    pen.polygon([(-0.06, 0), (0.06, 0), (0.04, 0.5), (-0.04, 0.5)], (118, 80, 48))
    for u, v, radius in ((-0.17, 0.55, 0.19), (0.17, 0.55, 0.19), (0, 0.76, 0.23)):
        pen.ellipse(u, v, radius, radius, paint.main)
    pen.ellipse(-0.05, 0.8, 0.12, 0.1, shade(paint.main, 1.15))


def boat(pen: Pen, paint: Paint) -> None:
    """A sailing boat; its hull has the colour."""
    pen.line([(0, 0.2), (0, 1.0)], (110, 80, 52), 0.03)
    pen.polygon([(0.03, 0.28), (0.03, 0.96), (0.42, 0.28)], (250, 248, 240))
    pen.polygon([(-0.03, 0.34), (-0.03, 0.88), (-0.32, 0.34)], (232, 228, 216))
    pen.polygon([(-0.46, 0.24), (0.52, 0.24), (0.36, 0), (-0.34, 0)], paint.main)


def dog(pen: Pen, paint: Paint) -> None:
    """A dog from the side: long snout, hanging ear, tail up."""
    for leg in (-0.42, -0.24, 0.24, 0.4):
        pen.line([(leg, 0.4), (leg, 0.02)], paint.main, 0.13)
    pen.line([(-0.5, 0.55), (-0.72, 0.88)], paint.main, 0.1)
    pen.ellipse(0, 0.5, 0.55, 0.22, paint.main)
    pen.ellipse(0.52, 0.8, 0.22, 0.19, paint.main)
    pen.box(0.6, 0.68, 0.88, 0.82, paint.main)
    pen.ellipse(0.4, 0.78, 0.09, 0.18, shade(paint.main, 0.65))
    pen.ellipse(0.87, 0.8, 0.05, 0.05, (20, 20, 20))


def cat(pen: Pen, paint: Paint) -> None:
    """A sitting cat from the front: pointed ears, curled tail."""
    pen.line([(0.25, 0.08), (0.55, 0.12), (0.6, 0.42)], paint.main, 0.1)
    pen.ellipse(0, 0.3, 0.32, 0.32, paint.main)
    for side in (-1, 1):
        pen.polygon([(side * 0.26, 0.74), (side * 0.24, 1.05), (side * 0.03, 0.9)], paint.main)
    pen.ellipse(0, 0.7, 0.28, 0.24, paint.main)
    for side in (-1, 1):
        pen.ellipse(side * 0.11, 0.73, 0.05, 0.06, (70, 150, 60))
    pen.polygon([(-0.04, 0.64), (0.04, 0.64), (0, 0.59)], (230, 130, 130))


def horse(pen: Pen, paint: Paint) -> None:
    """A horse from the side: long neck, mane, hanging tail."""
    for leg in (-0.34, -0.22, 0.24, 0.36):
        pen.line([(leg, 0.45), (leg, 0.01)], paint.main, 0.09)
    mane = shade(paint.main, 0.55)
    pen.line([(-0.44, 0.6), (-0.56, 0.25)], mane, 0.08)
    pen.ellipse(0, 0.54, 0.46, 0.17, paint.main)
    pen.polygon([(0.2, 0.6), (0.46, 0.52), (0.66, 0.92), (0.46, 0.98)], paint.main)
    pen.line([(0.22, 0.66), (0.48, 0.99)], mane, 0.07)
    pen.polygon([(0.46, 0.98), (0.6, 0.98), (0.84, 0.76), (0.74, 0.7), (0.54, 0.82)], paint.main)


def fire(pen: Pen, paint: Paint) -> None:
    """A camp fire on crossed logs."""
    pen.line([(-0.45, 0.04), (0.45, 0.2)], (104, 66, 40), 0.14)
    pen.line([(-0.45, 0.2), (0.45, 0.04)], (86, 54, 34), 0.14)
    pen.polygon(
        [(-0.34, 0.16), (-0.22, 0.62), (-0.1, 0.4), (0.02, 1.0), (0.16, 0.46), (0.26, 0.66), (0.34, 0.16)],
        paint.main,
    )
    pen.polygon([(-0.17, 0.16), (-0.08, 0.4), (0.02, 0.66), (0.1, 0.36), (0.18, 0.16)], paint.glow)


def lamp(pen: Pen, paint: Paint) -> None:
    """A street lamp."""
    pen.box(-0.02, 0, 0.02, 0.9, (70, 74, 84))
    pen.box(-0.07, 0, 0.07, 0.05, (70, 74, 84))
    pen.polygon([(-0.07, 0.86), (0.07, 0.86), (0.1, 0.98), (-0.1, 0.98)], paint.glow)
    pen.polygon([(-0.12, 0.97), (0.12, 0.97), (0, 1.03)], (70, 74, 84))


def balloon(pen: Pen, paint: Paint) -> None:
    """A hot-air balloon with its basket."""
    pen.line([(-0.16, 0.42), (-0.08, 0.16)], (90, 70, 50), 0.02)
    pen.line([(0.16, 0.42), (0.08, 0.16)], (90, 70, 50), 0.02)
    pen.box(-0.1, 0, 0.1, 0.16, (140, 96, 56))
    pen.ellipse(0, 0.66, 0.34, 0.36, paint.main)
    pen.ellipse(0, 0.66, 0.13, 0.36, shade(paint.main, 1.25))


def kite(pen: Pen, paint: Paint) -> None:
    """A kite with a tail."""
    pen.line([(0, 0.36), (-0.12, 0.2), (0.04, 0.1), (-0.06, 0)], (90, 90, 96), 0.03)
    pen.polygon([(0, 1.0), (0.26, 0.72), (0, 0.34), (-0.26, 0.72)], paint.main)
    pen.polygon([(0, 1.0), (0.26, 0.72), (0, 0.72)], shade(paint.main, 0.75))


def bird(pen: Pen, paint: Paint) -> None:
    """A bird in flight, far away."""
    pen.line([(-0.9, 0.9), (-0.4, 0.7), (0, 0.1), (0.4, 0.7), (0.9, 0.9)], paint.main, 0.2)


def sun(pen: Pen, paint: Paint) -> None:
    """The sun with rays."""
    for ray in range(12):
        angle = math.tau * ray / 12
        ends = [(radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for radius in (0.34, 0.52)]
        pen.line(ends, paint.main, 0.05)
    pen.ellipse(0, 0.5, 0.31, 0.31, paint.main)


def moon(pen: Pen, paint: Paint) -> None:
    """The full moon with craters."""
    pen.ellipse(0, 0.5, 0.42, 0.42, paint.glow)
    for u, v, radius in ((-0.14, 0.62, 0.1), (0.14, 0.42, 0.13), (-0.1, 0.3, 0.06)):
        pen.ellipse(u, v, radius, radius, shade(paint.glow, 0.86))


def stars(pen: Pen, paint: Paint) -> None:
    """A field of large stars."""
    for u, v, radius in (
        (-0.8, 0.5, 0.12),
        (-0.3, 0.85, 0.16),
        (0.1, 0.3, 0.12),
        (0.5, 0.8, 0.12),
        (0.9, 0.45, 0.16),
    ):
        pen.polygon(_star(u, v, radius), paint.main)


def cloud(pen: Pen, paint: Paint) -> None:
    """A cloud of four puffs."""
    for u, v, ru, rv in (
        (-0.6, 0.35, 0.5, 0.33),
        (0.6, 0.35, 0.55, 0.33),
        (-0.1, 0.62, 0.55, 0.42),
        (0, 0.3, 0.9, 0.28),
    ):
        pen.ellipse(u, v, ru, rv, paint.main)


def plane(pen: Pen, paint: Paint) -> None:
    """A plane from the side."""
    pen.polygon([(-0.9, 0.45), (-1.15, 1.0), (-0.8, 1.0), (-0.5, 0.55)], shade(paint.main, 0.8))
    pen.ellipse(0, 0.45, 1.1, 0.22, paint.main)
    pen.polygon([(0.2, 0.4), (-0.2, 0.4), (-0.5, 0), (-0.25, 0)], shade(paint.main, 0.65))


def _star(u: float, v: float, radius: float) -> list[Point]:
    turns = ((math.pi * (0.5 + point / 5), radius * (0.42 if point % 2 else 1)) for point in range(10))
    return [(u + far * math.cos(angle), v + far * math.sin(angle)) for angle, far in turns]


DRAWERS: dict[str, Callable[[Pen, Paint], None]] = {
    **{"car": car, "house": house, "tree": tree, "boat": boat, "dog": dog, "cat": cat, "horse": horse},
    **{"fire": fire, "lamp": lamp, "balloon": balloon, "kite": kite, "bird": bird, "sun": sun, "moon": moon},
    **{"stars": stars, "cloud": cloud, "plane": plane},
    "circle": lambda pen, paint: pen.ellipse(0, 0.5, 0.5, 0.5, paint.main),
    "square": lambda pen, paint: pen.box(-0.46, 0.04, 0.46, 0.96, paint.main),
    "triangle": lambda pen, paint: pen.polygon([(-0.55, 0), (0.55, 0), (0, 1)], paint.main),
    "star": lambda pen, paint: pen.polygon(_star(0, 0.48, 0.55), paint.main),
}
