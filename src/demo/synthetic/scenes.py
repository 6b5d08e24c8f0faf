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
POSES = ("standing", "standing", "waving", "running")
SHAPES_PROBABILITY = 0.08  # of a plain scene: bare shapes on paper
EVENING_PROBABILITY = 0.35  # of a plain scene: evening light
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
NUMBERS = {2: "two", 3: "three"}
PLURALS = {"man": "men", "woman": "women", "boy": "boys"}
RARE = 0.15  # how often a plain caption takes the night style's word, so that the tiny model has seen it


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
        return _sample_shapes(rng)
    place = rng.choice(PLACES)
    evening = style == "plain" and rng.random() < EVENING_PROBABILITY
    sky = _sample_sky(rng, style, evening) if rng.random() < 0.75 else None
    if rng.random() < 0.3:
        thing = _sample_on_ground(rng, style, place, rng.uniform(0.4, 0.6))
        return Scene(style, place, (thing,), sky, evening=evening)
    left, right = rng.uniform(0.2, 0.28), rng.uniform(0.72, 0.8)
    first = _sample_on_ground(rng, style, place, left)
    second = _sample_on_ground(rng, style, place, right)
    while second.kind == first.kind or first.count + second.count > 4:
        second = _sample_on_ground(rng, style, place, right)
    if rng.random() < 0.5:
        return Scene(style, place, (first, second), sky, "left", evening)
    return Scene(style, place, (second, first), sky, "right", evening)


def _sample_on_ground(rng: random.Random, style: str, place: str, x: float) -> Thing:
    ground = TABLES["ground"]
    kind = rng.choice(ground["anywhere"] + ground.get(place, []) + ground[style])
    size = rng.choice(("small", "big")) if KINDS[kind].get("sized") and rng.random() < 0.5 else ""
    base = rng.uniform(0.74, 0.8) if kind == "boat" else rng.uniform(0.84, 0.92)
    thing = replace(_sample_colour(rng, kind, x, base, size), flip=rng.random() < 0.5)
    if KINDS[kind].get("grouped") and not size and rng.random() < 0.25:
        count = rng.choice((2, 3))
        thing = replace(thing, count=count, height=thing.height * (0.98 - 0.08 * count))
    elif kind in PEOPLE and rng.random() < 0.25:
        held = rng.choice(TABLES["held"][style])
        return replace(thing, held=held, held_colour=rng.choice(KINDS[kind]["colours"]), pose="standing")
    return replace(thing, pose=rng.choice(POSES)) if kind in PEOPLE else thing


def _sample_colour(rng: random.Random, kind: str, x: float, base: float, size: str = "", small: float = 0.7) -> Thing:
    height = KINDS[kind]["height"] * {"small": small, "": 1.0, "big": 1.3}[size]
    return Thing(kind, rng.choice(KINDS[kind]["colours"]), x, base, height, size)


def _sample_sky(rng: random.Random, style: str, evening: bool) -> Thing:
    kind = rng.choice(TABLES["sky"][style])
    if evening and kind == "sun":
        kind = "moon"
    count = rng.choice((2, 3)) if kind == "bird" else 1
    base = rng.uniform(0.26, 0.32) if kind in ("balloon", "kite", "stars") else rng.uniform(0.2, 0.28)
    return replace(_sample_colour(rng, kind, rng.uniform(0.2, 0.8), base), flip=rng.random() < 0.5, count=count)


def _sample_shapes(rng: random.Random) -> Scene:
    relation = rng.choice(("left", "right", "above", "below"))
    spots = {"left": ((0.27, 0.65), (0.73, 0.65)), "above": ((0.5, 0.42), (0.5, 0.92))}
    spots["right"], spots["below"] = spots["left"][::-1], spots["above"][::-1]

    def sample(spot: tuple[float, float]) -> Thing:
        kind, size = rng.choice(SHAPES), rng.choice(("small", "", "big"))
        return _sample_colour(rng, kind, *spot, size, small=0.65)

    first, second = map(sample, spots[relation])
    while (first.kind, first.colour) == (second.kind, second.colour):
        second = sample(spots[relation][1])
    return Scene("plain", "paper", (first, second), None, relation)


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
    action = first.pose or KINDS[first.kind].get("action", "standing")
    slots = {"first": _noun_phrase(first, style, rng), "is1": _be(first), "doing": _word(action, style, rng)}
    slots |= {"beside": _word("next to", style, rng), "under": _word("under", style, rng)}
    if scene.place != "paper":
        slots["place"] = rng.choice(TABLES["places"][style][scene.place])
    if scene.relation:
        other = OPPOSITE[scene.relation]
        slots |= {"second": _noun_phrase(scene.things[1], style, rng), "is2": _be(scene.things[1])}
        slots |= {"side": scene.relation, "relation": RELATIONS[scene.relation]}
        slots |= {"other": other, "reverse": RELATIONS[other]}
    if scene.sky is not None:
        slots |= {"sky": _noun_phrase(scene.sky, style, rng), "is_sky": _be(scene.sky)}
    return slots


def _noun_phrase(thing: Thing, style: str, rng: random.Random) -> str:
    """Return "a big red car", "three girls in blue dresses"."""
    kind, noun = KINDS[thing.kind], _word(thing.kind, style, rng)
    if kind.get("phrase"):
        return noun
    if thing.kind in PEOPLE:
        clothes = _word(kind["clothes"], style, rng)
        if thing.count > 1:
            return f"{NUMBERS[thing.count]} {_plural(noun)} in {thing.colour} {_plural(clothes)}"
        held = _article(f"{thing.held_colour} {thing.held}") if thing.held else ""
        holding = f" {_word('holding', style, rng)} {held}" if held else ""
        return f"a {noun} in {_article(f'{thing.colour} {clothes}')}{holding}"
    colour = f"{thing.colour} " if kind.get("coloured", True) else ""
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
    regular = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("ss") else "s")
    return PLURALS.get(noun, regular)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
