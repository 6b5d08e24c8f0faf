"""What is in a drawn scene, before it is drawn or told: places, things, colours, sizes, counts, poses."""

import random
from dataclasses import dataclass, replace

STYLES = ("plain", "night")
PLACES = ("field", "beach", "street", "snow", "lake", "hills")
PEOPLE = ("man", "woman", "boy", "girl")
SHAPES = ("circle", "square", "triangle", "star")
CLOTHES = ("red", "blue", "yellow", "green", "purple")
POSES = ("standing", "standing", "waving", "running")
SHAPE_SHARE = 0.08  # of the plain scenes that are bare shapes on paper
EVENING_SHARE = 0.35  # of the plain scenes that lie in the light of evening

COLOURS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(PEOPLE, CLOTHES),
    "car": ("red", "blue", "yellow", "green", "white"),
    "house": ("red", "blue", "yellow", "white"),
    "tree": ("green", "orange"),
    "boat": ("red", "blue", "yellow", "white"),
    "dog": ("brown", "black", "white"),
    "cat": ("orange", "black", "white"),
    "horse": ("brown", "black", "white"),
    "fire": ("orange",),
    "lamp": ("yellow",),
    "balloon": CLOTHES,
    "kite": CLOTHES,
    "bird": ("black",),
    "sun": ("yellow",),
    "moon": ("yellow",),
    "cloud": ("white",),
    "plane": ("white",),
    "stars": ("white",),
    **dict.fromkeys(SHAPES, (*CLOTHES, "black")),
}
# Height of a thing of ordinary size, as a share of the picture's.
HEIGHTS: dict[str, float] = {
    **{"man": 0.46, "woman": 0.44, "boy": 0.3, "girl": 0.3, "car": 0.2, "house": 0.44, "tree": 0.5},
    **{"boat": 0.36, "dog": 0.2, "cat": 0.19, "horse": 0.4, "fire": 0.2, "lamp": 0.56},
    **{"balloon": 0.26, "kite": 0.24, "bird": 0.07, "sun": 0.2, "moon": 0.2, "cloud": 0.13, "plane": 0.12},
    **{"stars": 0.3, **dict.fromkeys(SHAPES, 0.3)},
}
WITH_SIZE = ("car", "house", "tree", "boat", *SHAPES)
IN_GROUPS = ("dog", "cat", "tree", "boy", "girl", "boat", "man", "woman")
SKY: dict[str, tuple[str, ...]] = {
    "plain": ("sun", "cloud", "bird", "balloon", "kite", "plane", "moon"),
    "night": ("moon", "moon", "stars", "balloon", "plane", "cloud"),
}
HELD: dict[str, tuple[str, ...]] = {
    "plain": ("balloon", "umbrella"),
    "night": ("lantern", "umbrella"),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing, or a row of `count` alike, of a scene.

    x: centre, 0 left to 1 right; base: its lowest point, 0 top to 1 bottom; height: share of the picture's.
    size: "small", "big" or "" for the ordinary; pose and held ("balloon", ..., "") are people's.
    """

    kind: str
    colour: str
    x: float
    base: float
    height: float
    size: str = ""
    count: int = 1
    pose: str = ""
    held: str = ""
    held_colour: str = ""
    flip: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A place with one or two things on the ground and perhaps one in the sky; "paper" holds bare shapes.

    relation: where `things[0]` is, seen from `things[1]`: "left", "right", "above", "below"; "" if alone.
    """

    style: str
    place: str
    things: tuple[Thing, ...]
    sky: Thing | None
    relation: str = ""
    evening: bool = False


def sample_scene(rng: random.Random, style: str) -> Scene:
    """A scene of one of the STYLES, by chance."""
    if style == "plain" and rng.random() < SHAPE_SHARE:
        return _shapes(rng)
    place = rng.choice(PLACES)
    evening = style == "plain" and rng.random() < EVENING_SHARE
    sky = _sky(rng, style, evening) if rng.random() < 0.75 else None
    if rng.random() < 0.3:
        return Scene(style, place, (_ground(rng, style, place, rng.uniform(0.4, 0.6)),), sky, evening=evening)
    left, right = rng.uniform(0.2, 0.28), rng.uniform(0.72, 0.8)
    first = _ground(rng, style, place, left)
    second = _ground(rng, style, place, right)
    while second.kind == first.kind or first.count + second.count > 4:
        second = _ground(rng, style, place, right)
    if rng.random() < 0.5:
        return Scene(style, place, (first, second), sky, "left", evening)
    return Scene(style, place, (second, first), sky, "right", evening)


def _ground(rng: random.Random, style: str, place: str, x: float) -> Thing:
    kinds = [*PEOPLE, "car", "house", "tree", "dog", "cat", "horse"]
    kinds += ["boat", "boat"] if place in ("lake", "beach") else []
    kinds += ["fire", "lamp"] if style == "night" else ["lamp"]
    kind = rng.choice(kinds)
    size, scale = "", 1.0
    if kind in WITH_SIZE and rng.random() < 0.5:
        size, scale = rng.choice((("small", 0.7), ("big", 1.3)))
    base = rng.uniform(0.84, 0.92) if kind != "boat" else rng.uniform(0.74, 0.8)
    thing = Thing(
        kind, rng.choice(COLOURS[kind]), x, base, HEIGHTS[kind] * scale, size, flip=rng.random() < 0.5
    )
    if kind in IN_GROUPS and not size and rng.random() < 0.25:
        count = rng.choice((2, 3))
        return replace(thing, count=count, height=thing.height * (0.98 - 0.08 * count), pose=_pose(rng, kind))
    held = rng.choice(HELD[style]) if kind in PEOPLE and rng.random() < 0.25 else ""
    return replace(
        thing,
        held=held,
        held_colour=rng.choice(CLOTHES) if held else "",
        pose="standing" if held else _pose(rng, kind),
    )


def _pose(rng: random.Random, kind: str) -> str:
    return rng.choice(POSES) if kind in PEOPLE else ""


def _sky(rng: random.Random, style: str, evening: bool) -> Thing:
    kind = rng.choice(SKY[style])
    if evening and kind == "sun":
        kind = "moon"
    count = rng.choice((2, 3)) if kind == "bird" else 1
    base = rng.uniform(0.26, 0.32) if kind in ("balloon", "kite", "stars") else rng.uniform(0.2, 0.28)
    x = rng.uniform(0.2, 0.8)
    return Thing(
        kind, rng.choice(COLOURS[kind]), x, base, HEIGHTS[kind], count=count, flip=rng.random() < 0.5
    )


def _shapes(rng: random.Random) -> Scene:
    relation = rng.choice(("left", "right", "above", "below"))
    places = {"left": ((0.27, 0.65), (0.73, 0.65)), "above": ((0.5, 0.42), (0.5, 0.92))}
    places["right"], places["below"] = places["left"][::-1], places["above"][::-1]
    first, second = (_shape(rng, *spot) for spot in places[relation])
    while (first.kind, first.colour) == (second.kind, second.colour):
        second = _shape(rng, *places[relation][1])
    return Scene("plain", "paper", (first, second), None, relation)


def _shape(rng: random.Random, x: float, base: float) -> Thing:
    kind = rng.choice(SHAPES)
    size, scale = rng.choice((("small", 0.65), ("", 1.0), ("big", 1.3)))
    return Thing(kind, rng.choice(COLOURS[kind]), x, base, HEIGHTS[kind] * scale, size)
