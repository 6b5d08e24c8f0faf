"""Sample synthetic scenes (places, things, colours, sizes, poses) and describe them; the tables are in `scenes.yaml`.

"plain" captions are school-book sentences. "night" captions are like Flickr's: present participles, commas
within a sentence, a blank before every punctuation mark, other words for the same things.
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
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
NUMBERS = {2: "two", 3: "three"}
PLURALS = {"man": "men", "woman": "women"}
NO_COLOUR = ("bird", "fire", "lamp", "plane")
RARE = 0.15  # how often a plain caption takes the night style's word, so that the tiny model has seen it
ACTIONS = {"cat": "sitting", "car": "parked", "boat": "sailing", "fire": "burning"}
WITH_ARTICLE = ("sun", "moon", "stars", "cloud")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing, or a row of `count` alike, of a scene."""

    kind: str
    colour: str
    x: float  # centre, 0 left to 1 right
    base: float  # its lowest point, 0 top to 1 bottom
    height: float  # fraction of the image's
    size: str = ""  # small, big or "" for the ordinary
    count: int = 1
    pose: str = ""  # people's
    held: str = ""  # people's: balloon, umbrella, lantern or ""
    held_colour: str = ""
    flip: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A place with one or two things on the ground and perhaps one in the sky; "paper" holds bare shapes."""

    style: str
    place: str
    things: tuple[Thing, ...]
    sky: Thing | None
    relation: str = ""  # where things[0] is, seen from things[1]: left, right, above, below; "" if alone
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
    thing = _flip(rng, _thing(rng, kind, x, base, scale, size))
    if kind in IN_GROUPS and not size and rng.random() < 0.25:
        count = rng.choice((2, 3))
        return replace(thing, count=count, height=thing.height * (0.98 - 0.08 * count), pose=_pose(rng, kind))
    held = rng.choice(TABLES["held"][style]) if kind in PEOPLE and rng.random() < 0.25 else ""
    held_colour = rng.choice(CLOTHES) if held else ""
    return replace(thing, held=held, held_colour=held_colour, pose="standing" if held else _pose(rng, kind))


def _thing(rng: random.Random, kind: str, x: float, base: float, scale: float = 1.0, size: str = "") -> Thing:
    return Thing(kind, rng.choice(KINDS[kind]["colours"]), x, base, KINDS[kind]["height"] * scale, size)


def _flip(rng: random.Random, thing: Thing) -> Thing:
    return replace(thing, flip=rng.random() < 0.5)


def _pose(rng: random.Random, kind: str) -> str:
    return rng.choice(POSES) if kind in PEOPLE else ""


def _sky(rng: random.Random, style: str, evening: bool) -> Thing:
    kind = rng.choice(TABLES["sky"][style])
    if evening and kind == "sun":
        kind = "moon"
    count = rng.choice((2, 3)) if kind == "bird" else 1
    base = rng.uniform(0.26, 0.32) if kind in ("balloon", "kite", "stars") else rng.uniform(0.2, 0.28)
    return replace(_flip(rng, _thing(rng, kind, rng.uniform(0.2, 0.8), base)), count=count)


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


def describe_scene(scene: Scene, rng: random.Random) -> list[str]:
    """Return five captions, all from different templates; some mention what is in the sky."""
    templates = TABLES["templates"][scene.style]
    main = templates["shapes" if scene.place == "paper" else "two" if len(scene.things) == 2 else "one"]
    chosen = rng.sample(templates["sky"], 2) if scene.sky else []
    chosen += [rng.choice(templates["evening"])] if scene.evening else []
    chosen += rng.sample(main, 5 - len(chosen))
    rng.shuffle(chosen)
    captions = [template.format_map(_slots(scene, rng)) for template in chosen]
    return [caption[0].upper() + caption[1:] for caption in captions]


def _slots(scene: Scene, rng: random.Random) -> dict[str, str]:
    first, style = scene.things[0], scene.style
    action = first.pose or ACTIONS.get(first.kind, "standing")
    slots = {"first": noun_phrase(first, scene, rng), "is1": _be(first), "doing": _word(action, style, rng)}
    slots |= {"beside": _word("next to", style, rng), "under": _word("under", style, rng)}
    if scene.place != "paper":
        slots["place"] = rng.choice(TABLES["places"][style][scene.place])
    if scene.relation:
        second = scene.things[1]
        slots |= {"second": noun_phrase(second, scene, rng), "is2": _be(second)}
        slots |= {"side": scene.relation, "other": OPPOSITE[scene.relation]}
        slots |= {"relation": RELATIONS[scene.relation], "reverse": RELATIONS[OPPOSITE[scene.relation]]}
    if scene.sky is not None:
        slots |= {"sky": noun_phrase(scene.sky, scene, rng), "is_sky": _be(scene.sky)}
    return slots


def noun_phrase(thing: Thing, scene: Scene, rng: random.Random) -> str:
    """Return "a big red car", "three girls in blue dresses"."""
    style = scene.style
    noun = _word(thing.kind, style, rng)
    if thing.kind in WITH_ARTICLE:
        return noun
    if thing.kind in PEOPLE:
        clothing = _word("dress" if thing.kind in ("woman", "girl") else "shirt", style, rng)
        if thing.count > 1:
            noun = PLURALS.get(noun, noun + "s")
            return f"{NUMBERS[thing.count]} {noun} in {thing.colour} {_plural(clothing)}"
        held = ""
        if thing.held:
            held = f" {_word('holding', style, rng)} {_article(f'{thing.held_colour} {thing.held}')}"
        return f"a {noun} in {_article(f'{thing.colour} {clothing}')}{held}"
    colour = "" if thing.kind in NO_COLOUR else f"{thing.colour} "
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {colour}{_plural(noun)}"
    size = f"{_word(thing.size, style, rng)} " if thing.size else ""
    return _article(f"{size}{colour}{noun}")


def _word(key: str, style: str, rng: random.Random) -> str:
    """Return the style's word for `key`; plain takes the other one now and then."""
    plain, night = TABLES["words"].get(key, (key, key))
    return night if style == "night" or rng.random() < RARE else plain


def _be(thing: Thing) -> str:
    return "are" if thing.count > 1 or thing.kind == "stars" else "is"


def _plural(noun: str) -> str:
    return noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("ss") else "s")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
