"""From a `Scene` to its picture: the two looks, the places behind the things, shadows and glow."""

import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from src.demo.synthetic.scene import PEOPLE, Scene, Thing
from src.demo.synthetic.things import DRAWERS, HAIR, SKIN, Colour, Paint, Pen, person, shade

OVERSAMPLING = 2
EVENING = (72, 76, 122)  # 256ths of red, green and blue that the last light leaves
GLOWING = ("moon", "lamp")
DAY_EDGES = (None, None, None, (40, 40, 48))  # outlines of plain scenes
EVENING_EDGES = (None, (232, 238, 255))
HORIZON = 0.62  # where the ground begins, 0 top to 1 bottom
# Distance between the things of a row, and from the middle of one to its edge, in heights.
GAP = {"bird": 3.2, "tree": 0.72, "dog": 1.6, "cat": 0.9, "boat": 0.95}
HELD_REACH = {"umbrella": 0.58, "balloon": 0.5}
REACH = {
    "bird": 1.0,
    "dog": 0.95,
    "cat": 0.6,
    "car": 1.15,
    "house": 0.56,
    "boat": 0.52,
    "horse": 0.84,
    "cloud": 1.2,
}


@dataclass(frozen=True, slots=True)
class Look:
    """What makes a style: its palette, its skies (top, bottom), its ground (far, near) and its outline."""

    palette: dict[str, Colour]
    skies: tuple[tuple[Colour, Colour], ...]
    ground: dict[str, tuple[Colour, Colour]]
    far: Colour  # hills and houses at the horizon
    window: Colour
    glow: Colour
    dark: Colour
    light: float  # on skin, hair and clouds
    edge: Colour | None


LOOKS: dict[str, Look] = {
    "plain": Look(
        palette={
            **{"red": (220, 48, 44), "blue": (42, 98, 214), "yellow": (250, 206, 40), "green": (52, 152, 62)},
            **{"orange": (242, 132, 30), "purple": (138, 62, 178), "white": (248, 248, 246)},
            **{"black": (36, 36, 40), "brown": (134, 84, 46)},
        },
        skies=(
            ((98, 174, 240), (208, 234, 250)),
            ((150, 182, 206), (224, 230, 232)),
            ((246, 170, 110), (252, 226, 180)),
        ),
        ground={
            **{"field": ((146, 204, 98), (108, 176, 74)), "beach": ((240, 220, 166), (228, 200, 138))},
            **{"street": ((124, 126, 132), (100, 102, 108)), "snow": ((240, 246, 252), (214, 228, 242))},
            **{"lake": ((96, 164, 216), (58, 122, 186)), "hills": ((176, 208, 110), (136, 182, 84))},
        },
        far=(120, 156, 118),
        window=(206, 228, 244),
        glow=(252, 236, 150),
        dark=(62, 66, 84),
        light=1.0,
        edge=None,
    ),
    "night": Look(
        palette={
            **{"red": (186, 44, 66), "blue": (52, 96, 200), "yellow": (222, 178, 60), "green": (34, 122, 86)},
            **{"orange": (222, 112, 44), "purple": (134, 76, 190), "white": (208, 216, 236)},
            **{"black": (18, 18, 30), "brown": (110, 70, 60)},
        },
        skies=(((8, 12, 40), (44, 52, 110)), ((16, 10, 44), (92, 54, 116)), ((6, 20, 38), (28, 84, 110))),
        ground={
            **{"field": ((30, 66, 62), (20, 46, 48)), "beach": ((104, 98, 118), (78, 74, 98))},
            **{"street": ((58, 58, 78), (40, 40, 58)), "snow": ((146, 160, 204), (112, 126, 178))},
            **{"lake": ((30, 58, 108), (18, 36, 78)), "hills": ((48, 72, 58), (32, 52, 46))},
        },
        far=(24, 34, 62),
        window=(255, 214, 110),
        glow=(255, 232, 160),
        dark=(26, 28, 48),
        light=0.82,
        edge=(176, 196, 236),
    ),
}


def draw_scene(scene: Scene, size: int, rng: random.Random) -> Image.Image:
    """The picture of a scene: RGB, `size` x `size` pixels. `rng` chooses what no caption tells."""
    look, pixels = LOOKS[scene.style], size * OVERSAMPLING
    if scene.style == "plain":
        look = replace(look, edge=rng.choice(EVENING_EDGES if scene.evening else DAY_EDGES))
    if scene.place == "paper":
        paper = rng.choice(((250, 246, 236), (236, 242, 248), (240, 240, 240)))
        image = Image.new("RGB", (pixels, pixels), paper)
    else:
        image = _background(scene, look, pixels, rng)
    things = sorted(scene.things, key=lambda thing: thing.base) + ([scene.sky] if scene.sky else [])
    lit = [thing for thing in things if scene.evening and thing.kind in GLOWING]
    for thing in (*(thing for thing in things if thing not in lit), None, *lit):
        if thing is not None:
            on_ground = scene.place != "paper" and thing is not scene.sky and thing.kind != "boat"
            _row(image, thing, look, rng, shadow=on_ground)
        elif scene.evening:
            image = _dim(image, rng)
    return image.resize((size, size), Image.Resampling.BOX)


def _dim(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture in the light of evening."""
    strength = rng.uniform(0.4, 1)
    dims = [round(256 - strength * (256 - dim)) for dim in EVENING]
    return image.point([value * dim // 256 for dim in dims for value in range(256)])


def _background(scene: Scene, look: Look, pixels: int, rng: random.Random) -> Image.Image:
    image = _gradient(pixels, pixels, *rng.choice(look.skies))
    draw = ImageDraw.Draw(image)
    horizon = round(HORIZON * pixels)
    if scene.style == "night" or (scene.evening and rng.random() < 0.5):
        for _ in range(40):
            x, y = rng.random() * pixels, rng.random() * horizon
            radius = pixels * rng.choice((0.0015, 0.002, 0.003))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(214, 222, 255))
    _far(scene.place, draw, look, pixels, rng)
    near = _gradient(pixels, pixels - horizon, *look.ground[scene.place])
    image.paste(near, (0, horizon))
    _near(scene.place, draw, look, pixels)
    return image


def _far(place: str, draw: ImageDraw.ImageDraw, look: Look, pixels: int, rng: random.Random) -> None:
    """What stands at the horizon: hills, mountains, a row of houses, the sea."""
    horizon = HORIZON * pixels
    if place in ("hills", "snow"):
        peak = (236, 240, 248) if place == "snow" else None
        for middle in (0.15, 0.55, 0.9):
            top, half = rng.uniform(0.34, 0.44) * pixels, 0.36 * pixels
            x = (middle + rng.uniform(-0.06, 0.06)) * pixels
            draw.polygon(
                [(x - half, horizon), (x, top), (x + half, horizon)],
                fill=shade(look.far, rng.uniform(0.85, 1.2)),
            )
            if peak:
                cap, side = (horizon - top) * 0.35, half * 0.35
                draw.polygon(
                    [(x - side, top + cap), (x, top), (x + side, top + cap)], fill=shade(peak, look.light)
                )
    elif place == "street":
        x = -0.04
        while x < 1:
            width, top = rng.uniform(0.12, 0.2), rng.uniform(0.4, 0.52) * pixels
            wall = shade(look.far, rng.uniform(0.9, 1.35))
            draw.rectangle((x * pixels, top, (x + width - 0.01) * pixels, horizon), fill=wall)
            for v in (0.25, 0.6):
                for u in (0.25, 0.6):
                    left, y = (x + u * width) * pixels, top + v * (horizon - top)
                    if rng.random() < 0.7:
                        draw.rectangle((left, y, left + 0.02 * pixels, y + 0.025 * pixels), fill=look.window)
            x += width
    elif place == "beach":
        sea = look.ground["lake"]
        draw.rectangle((0, 0.5 * pixels, pixels, horizon), fill=sea[0])
    elif place == "lake":
        for middle in range(12):
            x, top = (middle + rng.random()) / 12 * pixels, rng.uniform(0.53, 0.57) * pixels
            draw.ellipse(
                (x - 0.07 * pixels, top, x + 0.07 * pixels, top + 0.2 * pixels), fill=shade(look.far, 0.8)
            )


def _near(place: str, draw: ImageDraw.ImageDraw, look: Look, pixels: int) -> None:
    """What lies on the ground: the road's marks, the shore of a lake, the foam of the sea."""
    if place == "street":
        for mark in range(6):
            left = (mark / 5 - 0.06) * pixels
            draw.rectangle(
                (left, 0.95 * pixels, left + 0.1 * pixels, 0.965 * pixels),
                fill=shade((236, 232, 210), look.light),
            )
        draw.rectangle(
            (0, HORIZON * pixels, pixels, 0.68 * pixels), fill=shade(look.ground["street"][0], 1.35)
        )
    elif place == "lake":
        shore = look.ground["field"]
        draw.polygon(
            [(0, 0.8 * pixels), (pixels, 0.84 * pixels), (pixels, pixels), (0, pixels)], fill=shore[1]
        )
        for wave in range(5):
            x, y = (0.08 + 0.2 * wave) * pixels, (0.67 + 0.04 * (wave % 3)) * pixels
            draw.line(
                (x, y, x + 0.09 * pixels, y), fill=shade(look.ground["lake"][0], 1.2), width=pixels // 160
            )
    elif place == "beach":
        draw.line(
            (0, HORIZON * pixels, pixels, HORIZON * pixels),
            fill=shade((250, 250, 250), look.light),
            width=pixels // 60,
        )


def _row(image: Image.Image, thing: Thing, look: Look, rng: random.Random, shadow: bool) -> None:
    """Draw a thing, or its row of `count`, with a shadow or a glow around it."""
    gap = GAP.get(thing.kind, 0.56) * thing.height
    middle = (thing.count - 1) / 2
    side = HELD_REACH.get(thing.held) or REACH.get(thing.kind, 0.4)
    reach = middle * gap + side * thing.height
    centre = min(max(thing.x, reach + 0.01), 0.99 - reach)  # nothing is cut off by the picture's edge
    for place in range(thing.count):
        one = replace(thing, x=centre + (place - middle) * gap, base=thing.base + (place % 2) * 0.02)
        _one(image, one, look, rng, shadow)


def _one(image: Image.Image, thing: Thing, look: Look, rng: random.Random, shadow: bool) -> None:
    if thing.kind in ("moon", "fire", "lamp", "sun") or thing.held == "lantern":
        _halo(image, thing, look)
    draw = ImageDraw.Draw(image)
    pen = Pen(draw, image.width, thing.x, thing.base, thing.height, thing.flip, look.edge)
    if shadow:
        x, y = pen.at(0, 0)
        half = thing.height * image.width * (0.95 if thing.kind in ("car", "dog") else 0.42)
        ground = image.getpixel((min(max(round(x), 0), image.width - 1), min(round(y) + 1, image.height - 1)))
        assert isinstance(ground, tuple)
        dim = shade((ground[0], ground[1], ground[2]), 0.75)
        draw.ellipse((x - half, y - half * 0.12, x + half, y + half * 0.12), fill=dim)
    paint = Paint(
        main=look.palette[thing.colour],
        held=look.palette.get(thing.held_colour, look.dark),
        skin=shade(rng.choice(SKIN), look.light),
        hair=shade(rng.choice(HAIR), look.light),
        dark=look.dark,
        glow=look.glow if thing.kind != "house" else look.window,
    )
    if thing.kind == "cloud":
        paint = replace(paint, main=shade(paint.main, 1.0 if look.light == 1 else 0.45))
        pen = replace(pen, edge=None)
    if thing.kind in PEOPLE:
        person(pen, paint, thing.kind, thing.pose, thing.held)
    else:
        DRAWERS[thing.kind](pen, paint)


def _halo(image: Image.Image, thing: Thing, look: Look) -> None:
    """Light around a lamp, a fire, the moon or the sun: a blurred disc, pasted over."""
    lifts = {"lamp": 0.93, "moon": 0.5, "sun": 0.5, "fire": 0.5}
    radius = {"lamp": 0.14, "fire": 0.2, "moon": 0.17, "sun": 0.17}.get(thing.kind, 0.1)
    u = 0.27 if thing.held == "lantern" else 0.0
    x = thing.x + (-u if thing.flip else u) * thing.height
    y = thing.base - lifts.get(thing.kind, 0.44) * thing.height
    box = tuple(round(part * image.width) for part in (x - radius, y - radius, x + radius, y + radius))
    mask = Image.radial_gradient("L").resize((box[2] - box[0], box[3] - box[1]))
    mask = mask.point(lambda value: max(0, 150 - value * 150 // 181))
    image.paste(look.glow, (box[0], box[1]), mask)


def _gradient(width: int, height: int, top: Colour, bottom: Colour) -> Image.Image:
    mask = Image.linear_gradient("L").resize((width, height))
    return Image.composite(
        Image.new("RGB", (width, height), bottom), Image.new("RGB", (width, height), top), mask
    )
