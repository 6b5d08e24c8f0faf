"""Sample the content of synthetic scenes before they are rendered or described: places, things, colours, sizes, poses.

The tables are in `scenes.yaml`.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("scenes.yaml").read_text(encoding="utf-8"))
KINDS: dict[str, dict[str, Any]] = TABLES["kinds"]
STYLES = ("plain", "night")
PLACES = ("field", "beach", "street", "snow", "lake", "hills")
PEOPLE = ("man", "woman", "boy", "girl")
SHAPES = ("circle", "square", "triangle", "star")
CLOTHES = ("red", "blue", "yellow", "green", "purple")
POSES = ("standing", "standing", "waving", "running")
SHAPES_PROBABILITY = 0.08  # of a plain scene: bare shapes on paper
EVENING_PROBABILITY = 0.35  # of a plain scene: evening light
WITH_SIZE = ("car", "house", "tree", "boat", *SHAPES)
IN_GROUPS = ("dog", "cat", "tree", "boy", "girl", "boat", "man", "woman")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing, or a row of `count` alike, of a scene.

    x: centre, 0 left to 1 right; base: its lowest point, 0 top to 1 bottom; height: fraction of the image's.
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
    """Sample a scene of one of the STYLES."""
    if style == "plain" and rng.random() < SHAPES_PROBABILITY:
        return _shapes(rng)
    place = rng.choice(PLACES)
    evening = style == "plain" and rng.random() < EVENING_PROBABILITY
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
    thing = _thing(rng, kind, x, base, scale, size, flips=True)
    if kind in IN_GROUPS and not size and rng.random() < 0.25:
        count = rng.choice((2, 3))
        return replace(thing, count=count, height=thing.height * (0.98 - 0.08 * count), pose=_pose(rng, kind))
    held = rng.choice(TABLES["held"][style]) if kind in PEOPLE and rng.random() < 0.25 else ""
    held_colour = rng.choice(CLOTHES) if held else ""
    return replace(thing, held=held, held_colour=held_colour, pose="standing" if held else _pose(rng, kind))


def _thing(
    rng: random.Random,
    kind: str,
    x: float,
    base: float,
    scale: float = 1.0,
    size: str = "",
    flips: bool = False,
) -> Thing:
    colour, height = rng.choice(KINDS[kind]["colours"]), KINDS[kind]["height"] * scale
    return Thing(kind, colour, x, base, height, size, flip=flips and rng.random() < 0.5)


def _pose(rng: random.Random, kind: str) -> str:
    return rng.choice(POSES) if kind in PEOPLE else ""


def _sky(rng: random.Random, style: str, evening: bool) -> Thing:
    kind = rng.choice(TABLES["sky"][style])
    if evening and kind == "sun":
        kind = "moon"
    count = rng.choice((2, 3)) if kind == "bird" else 1
    base = rng.uniform(0.26, 0.32) if kind in ("balloon", "kite", "stars") else rng.uniform(0.2, 0.28)
    return replace(_thing(rng, kind, rng.uniform(0.2, 0.8), base, flips=True), count=count)


def _shapes(rng: random.Random) -> Scene:
    relation = rng.choice(("left", "right", "above", "below"))
    spots = {"left": ((0.27, 0.65), (0.73, 0.65)), "above": ((0.5, 0.42), (0.5, 0.92))}
    spots["right"], spots["below"] = spots["left"][::-1], spots["above"][::-1]
    first, second = (_shape(rng, *spot) for spot in spots[relation])
    while (first.kind, first.colour) == (second.kind, second.colour):
        second = _shape(rng, *spots[relation][1])
    return Scene("plain", "paper", (first, second), None, relation)


def _shape(rng: random.Random, x: float, base: float) -> Thing:
    kind = rng.choice(SHAPES)
    size, scale = rng.choice((("small", 0.65), ("", 1.0), ("big", 1.3)))
    return _thing(rng, kind, x, base, scale, size)
