"""Draw synthetic scenes: backgrounds, things in their own frames (tables in `scenes.yaml`), shadows and glow."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageColor, ImageDraw

from src.demo.synthetic.scenes import KINDS, PEOPLE, TABLES, Scene, Thing

Colour = tuple[int, ...]
Point = tuple[float, float]
Look = dict[str, Any]  # one of the tables `looks`

OVERSAMPLING = 2
EVENING = (72, 76, 122)  # 256ths of red, green and blue that remain in full evening light
GLOWING = ("moon", "lamp")
DAY_EDGES = (None, None, None, "#282830")  # outlines of plain scenes
EVENING_EDGES = (None, "#e8eeff")
PAPERS = ((250, 246, 236), (236, 242, 248), (240, 240, 240))
HORIZON = 0.62  # where the ground begins, 0 top to 1 bottom
SKIN = ("#f5d0b0", "#e0ac7c", "#a87048", "#68422c")
HAIR = ("#342620", "#784e28", "#ce9e48", "#1e1c1e")
HANDS = {"standing": "0.19 0.42", "holding": "0.27 0.62", "running": "0.27 0.62", "waving": "0.26 1.0"}
OTHER_HANDS = {"standing": "-0.19 0.42", "running": "-0.27 0.56"}
HELD_REACH = {"umbrella": 0.58, "balloon": 0.5}
HALO = {"lamp": (0.93, 0.14), "moon": (0.5, 0.17), "sun": (0.5, 0.17), "fire": (0.5, 0.2)}  # height, radius


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
    for thing in (*(thing for thing in things if thing not in lit), None, *lit):
        if thing is not None:
            on_ground = scene.place != "paper" and thing is not scene.sky and thing.kind != "boat"
            _row(image, thing, look, rng, shadow=on_ground)
        elif scene.evening:
            strength = rng.uniform(0.4, 1)
            dims = [round(256 - strength * (256 - dim)) for dim in EVENING]
            image = image.point([value * dim // 256 for dim in dims for value in range(256)])
    return image.resize((size, size), Image.Resampling.BOX)


def shade(colour: str | Colour, factor: float) -> Colour:
    """Return a darker colour for a factor below 1, a brighter one above."""
    channels = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return tuple(min(int(channel * factor), 255) for channel in channels)


# Backgrounds


def _background(scene: Scene, look: Look, pixels: int, rng: random.Random) -> Image.Image:
    image = _gradient(pixels, pixels, *rng.choice(look["skies"]))
    draw = ImageDraw.Draw(image)
    horizon = round(HORIZON * pixels)
    if scene.style == "night" or (scene.evening and rng.random() < 0.5):
        for _ in range(40):
            x, y = rng.random() * pixels, rng.random() * horizon
            radius = pixels * rng.choice((0.0015, 0.002, 0.003))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(214, 222, 255))
    _draw_far(scene.place, draw, look, pixels, rng)
    image.paste(_gradient(pixels, pixels - horizon, *look["ground"][scene.place]), (0, horizon))
    _draw_near(scene.place, draw, look, pixels)
    return image


def _gradient(width: int, height: int, top: str, bottom: str) -> Image.Image:
    mask = Image.linear_gradient("L").resize((width, height))
    return Image.composite(Image.new("RGB", mask.size, bottom), Image.new("RGB", mask.size, top), mask)


def _draw_far(place: str, draw: ImageDraw.ImageDraw, look: Look, pixels: int, rng: random.Random) -> None:
    """Draw what stands at the horizon: hills, mountains, a row of houses, the sea, trees."""
    horizon, far = HORIZON * pixels, look["far"]
    if place in ("hills", "snow"):
        for middle in (0.15, 0.55, 0.9):
            top, half = rng.uniform(0.34, 0.44) * pixels, 0.36 * pixels
            x = (middle + rng.uniform(-0.06, 0.06)) * pixels
            slope = [(x - half, horizon), (x, top), (x + half, horizon)]
            draw.polygon(slope, fill=shade(far, rng.uniform(0.85, 1.2)))
            if place == "snow":
                cap, side = (horizon - top) * 0.35, half * 0.35
                peak = [(x - side, top + cap), (x, top), (x + side, top + cap)]
                draw.polygon(peak, fill=shade((236, 240, 248), look["light"]))
    elif place == "street":
        x = -0.04
        while x < 1:
            width, top = rng.uniform(0.12, 0.2), rng.uniform(0.4, 0.52) * pixels
            wall = shade(far, rng.uniform(0.9, 1.35))
            draw.rectangle((x * pixels, top, (x + width - 0.01) * pixels, horizon), fill=wall)
            for v, u in ((0.25, 0.25), (0.25, 0.6), (0.6, 0.25), (0.6, 0.6)):
                left, y = (x + u * width) * pixels, top + v * (horizon - top)
                if rng.random() < 0.7:
                    draw.rectangle((left, y, left + 0.02 * pixels, y + 0.025 * pixels), fill=look["window"])
            x += width
    elif place == "beach":
        draw.rectangle((0, 0.5 * pixels, pixels, horizon), fill=look["ground"]["lake"][0])
    elif place == "lake":
        for tree in range(12):
            x, top = (tree + rng.random()) / 12 * pixels, rng.uniform(0.53, 0.57) * pixels
            box = (x - 0.07 * pixels, top, x + 0.07 * pixels, top + 0.2 * pixels)
            draw.ellipse(box, fill=shade(far, 0.8))


def _draw_near(place: str, draw: ImageDraw.ImageDraw, look: Look, pixels: int) -> None:
    """Draw what lies on the ground: the road's marks, the shore of a lake, the foam of the sea."""
    ground, light, horizon = look["ground"], look["light"], HORIZON * pixels
    if place == "street":
        for mark in range(6):
            left = (mark / 5 - 0.06) * pixels
            box = (left, 0.95 * pixels, left + 0.1 * pixels, 0.965 * pixels)
            draw.rectangle(box, fill=shade((236, 232, 210), light))
        draw.rectangle((0, horizon, pixels, 0.68 * pixels), fill=shade(ground["street"][0], 1.35))
    elif place == "lake":
        shore = [(0, 0.8 * pixels), (pixels, 0.84 * pixels), (pixels, pixels), (0, pixels)]
        draw.polygon(shore, fill=ground["field"][1])
        for wave in range(5):
            x, y = (0.08 + 0.2 * wave) * pixels, (0.67 + 0.04 * (wave % 3)) * pixels
            draw.line((x, y, x + 0.09 * pixels, y), fill=shade(ground["lake"][0], 1.2), width=pixels // 160)
    elif place == "beach":
        draw.line((0, horizon, pixels, horizon), fill=shade((250, 250, 250), light), width=pixels // 60)


# Things


@dataclass(frozen=True, slots=True)
class Pen:
    """Draws in the frame of one thing: u to the right from its middle, v up from its base, both in heights.

    colours: by name (main, held, skin, hair, dark, glow). edge: outline of every filled form; None draws none.
    """

    draw: ImageDraw.ImageDraw
    pixels: int  # edge of the square image
    thing: Thing
    colours: dict[str, str | Colour]
    edge: str | None = None

    def at(self, u: float, v: float) -> Point:
        """Return the pixel of (u, v)."""
        height = self.thing.height
        side = -u if self.thing.flip else u
        return (self.thing.x + side * height) * self.pixels, (self.thing.base - v * height) * self.pixels

    def fill(self, colour: str) -> str | Colour:
        """Return the colour of `main`, `main*0.8` or `#rrggbb`."""
        name, _, factor = colour.partition("*")
        found = self.colours.get(name, name)
        return shade(found, float(factor)) if factor else found

    def shape(self, form: str, colour: str, *numbers: float) -> None:
        """Draw one row of the table of shapes in `scenes.yaml`."""
        width = max(self.pixels // 190, 1) if self.edge else 0
        outline: dict[str, Any] = {"outline": self.edge, "width": width}
        scale, fill = self.thing.height * self.pixels, self.fill(colour)
        if form == "ellipse":
            (x, y), rx, ry = self.at(*numbers[:2]), numbers[2] * scale, numbers[3] * scale
            self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill, **outline)
        elif form == "line":
            points = [self.at(*point) for point in _pairs(numbers[1:])]
            self.draw.line(points, fill=fill, width=max(round(numbers[0] * scale), 1), joint="curve")
        elif form == "rays":
            for angle in (math.tau * ray / 12 for ray in range(12)):
                ends = [(r * math.cos(angle), 0.5 + r * math.sin(angle)) for r in numbers[1:]]
                self.shape("line", colour, numbers[0], *ends[0], *ends[1])
        else:
            points = {"polygon": _pairs, "box": _box, "star": _star}[form](numbers)
            self.draw.polygon([self.at(*point) for point in points], fill=fill, **outline)

    def shapes(self, table: str) -> None:
        """Draw all rows of a table."""
        for form, colour, *numbers in map(str.split, table.splitlines()):
            self.shape(form, colour, *map(float, numbers))


def _pairs(numbers: Sequence[float]) -> list[Point]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _box(corners: Sequence[float]) -> list[Point]:
    u0, v0, u1, v1 = corners
    return [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]


def _star(numbers: Sequence[float]) -> list[Point]:
    u, v, radius = numbers
    turns = ((math.pi * (0.5 + point / 5), radius * (0.42 if point % 2 else 1)) for point in range(10))
    return [(u + far * math.cos(angle), v + far * math.sin(angle)) for angle, far in turns]


def _draw_person(pen: Pen) -> None:
    """Draw a man, woman, boy or girl; women and girls in a dress, boys in shorts."""
    kind, pose, held = pen.thing.kind, pen.thing.pose, pen.thing.held
    dress, age = kind in ("woman", "girl"), "child" if kind in ("boy", "girl") else "adult"
    tables, legs = TABLES["person_shapes"], "running" if pose == "running" else "standing"
    arms = "holding" if held and pose == "standing" else pose
    pen.shapes(tables[f"legs {legs}"].replace("LEG", "skin" if dress or kind == "boy" else "dark"))
    if kind == "boy":
        pen.shapes(tables["shorts"])
    pen.shapes(tables["arms"].replace("HAND", HANDS[arms]).replace("OTHER", OTHER_HANDS[legs]))
    if held:
        pen.shapes(TABLES["held_shapes"][held].replace("HAND", HANDS[arms]))
    pen.shapes(TABLES["held_shapes"]["dress" if dress else "shirt"])
    replace(pen, edge=None).shapes(tables[f"{'long' if dress else 'short'} hair {age}"])


def _row(image: Image.Image, thing: Thing, look: Look, rng: random.Random, shadow: bool) -> None:
    """Draw a thing, or its row of `count`; move it in where the edge of the image would cut it off."""
    kind = KINDS[thing.kind]
    gap = kind.get("gap", 0.56) * thing.height
    middle = (thing.count - 1) / 2
    side = HELD_REACH.get(thing.held) or kind.get("reach", 0.4)
    reach = middle * gap + side * thing.height
    centre = min(max(thing.x, reach + 0.01), 0.99 - reach)
    for index in range(thing.count):
        one = replace(thing, x=centre + (index - middle) * gap, base=thing.base + (index % 2) * 0.02)
        _draw_one(image, one, look, rng, shadow)


def _draw_one(image: Image.Image, thing: Thing, look: Look, rng: random.Random, shadow: bool) -> None:
    if thing.kind in HALO or thing.held == "lantern":
        _draw_halo(image, thing, look["glow"])
    draw, palette, light = ImageDraw.Draw(image), look["palette"], look["light"]
    pen = Pen(draw, image.width, thing, {}, look["edge"])
    if shadow:
        x, y = pen.at(0, 0)
        half = thing.height * image.width * (0.95 if thing.kind in ("car", "dog") else 0.42)
        spot = (min(max(round(x), 0), image.width - 1), min(round(y) + 1, image.height - 1))
        ground: Any = image.getpixel(spot)
        draw.ellipse((x - half, y - half * 0.12, x + half, y + half * 0.12), fill=shade(ground, 0.75))
    pen.colours.update(
        main=palette[thing.colour],
        held=palette.get(thing.held_colour, look["dark"]),
        skin=shade(rng.choice(SKIN), light),
        hair=shade(rng.choice(HAIR), light),
        dark=look["dark"],
        glow=look["glow"] if thing.kind != "house" else look["window"],
    )
    if thing.kind == "cloud":
        pen = replace(pen, edge=None)
        pen.colours["main"] = shade(palette[thing.colour], 1.0 if light == 1 else 0.45)
    if thing.kind in PEOPLE:
        _draw_person(pen)
    else:
        pen.shapes(TABLES["shapes"][thing.kind])


def _draw_halo(image: Image.Image, thing: Thing, glow: str) -> None:
    """Draw the light around a lamp, a fire, the moon or the sun: a blurred disc, pasted over."""
    lift, radius = HALO.get(thing.kind, (0.44, 0.1))
    u = 0.27 if thing.held == "lantern" else 0.0
    x = thing.x + (-u if thing.flip else u) * thing.height
    y = thing.base - lift * thing.height
    edges = (x - radius, y - radius, x + radius, y + radius)
    left, top, right, bottom = (round(edge * image.width) for edge in edges)
    mask = Image.radial_gradient("L").resize((right - left, bottom - top))
    image.paste(glow, (left, top), mask.point(lambda value: max(0, 150 - value * 150 // 181)))
