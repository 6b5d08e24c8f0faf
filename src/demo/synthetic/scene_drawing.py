"""Draw synthetic scenes: backgrounds, things in their own frames (tables in `scenes.yaml`), shadows and glow."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, ImageColor, ImageDraw

from src.demo.synthetic.scenes import KINDS, PEOPLE, TABLES, Scene, Thing

Colour = str | int | tuple[int, ...]
Look = dict[str, Any]  # one of the tables `looks`

OVERSAMPLING = 2
EVENING = (72, 76, 122)  # 256ths of red, green and blue that remain in full evening light
GLOWING = ("moon", "lamp")
DAY_EDGES = (None, None, None, "#282830")  # outlines of plain scenes
EVENING_EDGES = (None, "#e8eeff")
PAPERS = ((250, 246, 236), (236, 242, 248), (240, 240, 240))
HORIZON = 0.62  # where the ground begins, 0 top to 1 bottom


@dataclass(frozen=True, slots=True)
class Pen:
    """Draws the tables of shapes in a frame of a square image; the default frame is the image, v downwards.

    x, y: where the frame begins, in fractions of the image. right, up: one unit of u and of v there, negative to the
    left and downwards. colours: by their name in a table. edge: outline of every filled form; None draws none.
    """

    image: Image.Image
    x: float = 0.0
    y: float = 0.0
    right: float = 1.0
    up: float = -1.0
    colours: dict[str, Any] = field(default_factory=dict)
    edge: str | None = None

    def points(self, numbers: Sequence[float]) -> list[tuple[float, float]]:
        """Return the pixels of (u, v), (u, v), ..."""
        pixels, pairs = self.image.width, zip(numbers[::2], numbers[1::2], strict=True)
        return [((self.x + u * self.right) * pixels, (self.y - v * self.up) * pixels) for u, v in pairs]

    def shape(self, form: str, fill: Colour, *numbers: float) -> None:
        """Draw one row of a table, as `scenes.yaml` describes them."""
        draw, pixels, scale = ImageDraw.Draw(self.image), self.image.width, abs(self.up) * self.image.width
        outline: Any = {"outline": self.edge, "width": max(pixels // 190, 1) if self.edge else 0}
        if form == "ellipse":
            (x, y), rx, ry = self.points(numbers[:2])[0], numbers[2] * scale, numbers[3] * scale
            draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill, **outline)
        elif form == "oval":  # an ellipse in the frame of the image: its edges round otherwise
            u, v, ru, rv = numbers
            draw.ellipse(self.points((u - ru, v - rv, u + ru, v + rv)), fill=fill)
        elif form == "line":
            width = max(round(numbers[0] * scale), 1)
            draw.line(self.points(numbers[1:]), fill=fill, width=width, joint="curve")
        elif form == "rectangle":
            draw.rectangle(self.points(numbers), fill=fill)
        elif form == "polygon":
            draw.polygon(self.points(numbers), fill=fill, **outline)
        elif form == "box":
            left, low, right, high = numbers
            self.shape("polygon", fill, left, low, right, low, right, high, left, high)
        elif form == "star":
            u, v, radius = numbers
            turns = ((math.pi * (0.5 + point / 5), radius * (0.42 if point % 2 else 1)) for point in range(10))
            corners = ((u + far * math.cos(angle), v + far * math.sin(angle)) for angle, far in turns)
            self.shape("polygon", fill, *(number for corner in corners for number in corner))
        elif form == "rays":
            for angle in (math.tau * ray / 12 for ray in range(12)):
                ends = ((far * math.cos(angle), 0.5 + far * math.sin(angle)) for far in numbers[1:])
                self.shape("line", fill, numbers[0], *(number for end in ends for number in end))

    def shapes(self, table: str) -> None:
        """Draw all rows of a table."""
        for form, colour, *numbers in map(str.split, table.splitlines()):
            name, _, factor = colour.partition("*")
            fill = int(name) if name.isdigit() else self.colours.get(name, name)
            self.shape(form, shade(fill, float(factor)) if factor else fill, *map(float, numbers))


def shade(colour: Any, factor: float) -> tuple[int, ...]:
    """Return a darker colour for a factor below 1, a brighter one above."""
    channels = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return tuple(min(int(channel * factor), 255) for channel in channels)


def draw_scene(scene: Scene, size: int, rng: random.Random) -> Image.Image:
    """Draw a scene: RGB, `size` x `size` pixels. `rng` chooses what no caption mentions."""
    look, pixels = dict(TABLES["looks"][scene.style]), size * OVERSAMPLING
    if scene.style == "plain":
        look["edge"] = rng.choice(EVENING_EDGES if scene.evening else DAY_EDGES)
    if scene.place == "paper":
        image = Image.new("RGB", (pixels, pixels), rng.choice(PAPERS))
    else:
        image = _background(scene, look, pixels, rng)
    things = sorted(scene.things, key=lambda thing: thing.base) + ([scene.sky] if scene.sky else [])
    lit = [thing for thing in things if scene.evening and thing.kind in GLOWING]
    for thing in (thing for thing in things if thing not in lit):
        on_ground = scene.place != "paper" and thing is not scene.sky and thing.kind != "boat"
        _draw_row(image, thing, look, rng, on_ground)
    if scene.evening:
        strength = rng.uniform(0.4, 1)
        dims = [round(256 - strength * (256 - dim)) for dim in EVENING]
        image = image.point([value * dim // 256 for dim in dims for value in range(256)])
    for thing in lit:
        _draw_row(image, thing, look, rng, thing is not scene.sky)
    return image.resize((size, size), Image.Resampling.BOX)


def _background(scene: Scene, look: Look, pixels: int, rng: random.Random) -> Image.Image:
    image = _gradient(pixels, pixels, *rng.choice(look["skies"]))
    pen, horizon = Pen(image), round(HORIZON * pixels)
    if scene.style == "night" or (scene.evening and rng.random() < 0.5):
        for _ in range(40):
            x, y, radius = rng.random(), rng.random() * horizon / pixels, rng.choice((0.0015, 0.002, 0.003))
            pen.shape("ellipse", (214, 222, 255), x, y, radius, radius)
    _draw_far(scene.place, pen, look, rng)
    image.paste(_gradient(pixels, pixels - horizon, *look["ground"][scene.place]), (0, horizon))
    _draw_near(scene.place, pen, look)
    return image


def _gradient(width: int, height: int, top: str, bottom: str) -> Image.Image:
    mask = Image.linear_gradient("L").resize((width, height))
    return Image.composite(Image.new("RGB", mask.size, bottom), Image.new("RGB", mask.size, top), mask)


def _draw_far(place: str, pen: Pen, look: Look, rng: random.Random) -> None:
    """Draw what stands at the horizon: hills, mountains, a row of houses, the sea, trees."""
    far = look["far"]
    if place in ("hills", "snow"):
        for middle in (0.15, 0.55, 0.9):
            top, x = rng.uniform(0.34, 0.44), middle + rng.uniform(-0.06, 0.06)
            slope = (x - 0.36, HORIZON, x, top, x + 0.36, HORIZON)
            pen.shape("polygon", shade(far, rng.uniform(0.85, 1.2)), *slope)
            if place == "snow":
                side, low = 0.35 * 0.36, top + 0.35 * (HORIZON - top)
                pen.shape("polygon", shade((236, 240, 248), look["light"]), x - side, low, x, top, x + side, low)
    elif place == "street":
        x = -0.04
        while x < 1:
            width, top = rng.uniform(0.12, 0.2), rng.uniform(0.4, 0.52)
            pen.shape("rectangle", shade(far, rng.uniform(0.9, 1.35)), x, top, x + width - 0.01, HORIZON)
            for v, u in ((0.25, 0.25), (0.25, 0.6), (0.6, 0.25), (0.6, 0.6)):
                left, y = x + u * width, top + v * (HORIZON - top)
                if rng.random() < 0.7:
                    pen.shape("rectangle", look["window"], left, y, left + 0.02, y + 0.025)
            x += width
    elif place == "beach":
        pen.shape("rectangle", look["ground"]["lake"][0], 0, 0.5, 1, HORIZON)
    elif place == "lake":
        for tree in range(12):
            x, top = (tree + rng.random()) / 12, rng.uniform(0.53, 0.57)
            pen.shape("ellipse", shade(far, 0.8), x, top + 0.1, 0.07, 0.1)


def _draw_near(place: str, pen: Pen, look: Look) -> None:
    """Draw what lies on the ground: the road's marks, the shore of a lake, the foam of the sea."""
    ground, light, pixels = look["ground"], look["light"], pen.image.width
    draw = ImageDraw.Draw(pen.image)
    if place == "street":
        for left in (mark / 5 - 0.06 for mark in range(6)):
            pen.shape("rectangle", shade((236, 232, 210), light), left, 0.95, left + 0.1, 0.965)
        pen.shape("rectangle", shade(ground["street"][0], 1.35), 0, HORIZON, 1, 0.68)
    elif place == "lake":
        pen.shape("polygon", ground["field"][1], 0, 0.8, 1, 0.84, 1, 1, 0, 1)
        for wave in range(5):
            x, y = 0.08 + 0.2 * wave, 0.67 + 0.04 * (wave % 3)
            ends = pen.points((x, y, x + 0.09, y))
            draw.line(ends, fill=shade(ground["lake"][0], 1.2), width=pixels // 160)
    elif place == "beach":
        draw.line(pen.points((0, HORIZON, 1, HORIZON)), fill=shade((250, 250, 250), light), width=pixels // 60)


def _draw_row(image: Image.Image, thing: Thing, look: Look, rng: random.Random, shadow: bool) -> None:
    """Draw a thing, or its row of `count`; move it in where the edge of the image would cut it off."""
    kind = KINDS[thing.kind] | TABLES["held_kinds"].get(thing.held, {})
    gap, middle = kind.get("gap", 0.56) * thing.height, (thing.count - 1) / 2
    reach = middle * gap + kind.get("reach", 0.4) * thing.height
    centre = min(max(thing.x, reach + 0.01), 0.99 - reach)
    for index in range(thing.count):
        one = replace(thing, x=centre + (index - middle) * gap, base=thing.base + (index % 2) * 0.02)
        _draw_thing(image, one, kind, look, rng, shadow)


def _draw_thing(
    image: Image.Image, thing: Thing, kind: dict[str, Any], look: Look, rng: random.Random, shadow: bool
) -> None:
    height, palette = thing.height, look["palette"]
    pen = Pen(image, thing.x, thing.base, -height if thing.flip else height, height)
    x, y = pen.points((0, 0))[0]
    if "halo" in kind:
        _draw_halo(pen, kind["halo"], look["glow"])
    if shadow:
        ground = image.getpixel((min(max(round(x), 0), image.width - 1), min(round(y) + 1, image.height - 1)))
        half = 0.95 if thing.kind in ("car", "dog") else 0.42
        pen.shape("ellipse", shade(ground, 0.75), 0, 0, half, half * 0.12)
    colours = look | {"main": palette[thing.colour], "held": palette.get(thing.held_colour)}
    colours |= {part: shade(rng.choice(TABLES[part]), look["light"]) for part in ("skin", "hair")}
    outlined = replace(pen, colours=colours, edge=look["edge"] if kind.get("outlined", True) else None)
    if thing.kind in PEOPLE:
        _draw_person(outlined, thing)
    else:
        outlined.shapes(TABLES["shapes"][thing.kind])


def _draw_person(pen: Pen, thing: Thing) -> None:
    """Draw a man, woman, boy or girl; women and girls in a dress, boys in shorts."""
    tables, clothes = TABLES["person_shapes"], KINDS[thing.kind]["clothes"]
    legs = "running" if thing.pose == "running" else "standing"
    hand, other = TABLES["hands"]["holding" if thing.held else thing.pose], TABLES["other_hands"][legs]
    pen.shapes(tables[f"legs {legs}"].replace("LEG", "dark" if thing.kind == "man" else "skin"))
    if thing.kind == "boy":
        pen.shapes(tables["shorts"])
    pen.shapes(tables["arms"].replace("HAND", hand).replace("OTHER", other))
    if thing.held:
        pen.shapes(TABLES["held_shapes"][thing.held].replace("HAND", hand))
    pen.shapes(tables[clothes])
    replace(pen, edge=None).shapes(tables[f"head {thing.kind}"])


def _draw_halo(pen: Pen, halo: Sequence[float], glow: str) -> None:
    """Draw the light around a lamp, a fire, the moon or the sun: a blurred disc, pasted over."""
    (x, y), radius = pen.points(halo[:2])[0], halo[2] * pen.image.width
    left, top, right, bottom = map(round, (x - radius, y - radius, x + radius, y + radius))
    mask = Image.radial_gradient("L").resize((right - left, bottom - top))
    pen.image.paste(glow, (left, top), mask.point(lambda value: max(0, 150 - value * 150 // 181)))
