"""What people might say of a drawn scene: several sentences, each worded differently.

"plain" speaks in school-book sentences. "autumn" and "night" speak as the captions of Flickr do: present participles,
commas within a sentence, a blank before every punctuation mark, other words for the same things.
"""

import random
from collections.abc import Mapping

from src.datamodule.synthetic_scene import PEOPLE, SHAPES, Scene, Thing

NUMBERS = {2: "two", 3: "three"}
PLURALS = {"man": "men", "woman": "women"}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
NOUNS: dict[str, dict[str, str]] = {
    "plain": {"fire": "camp fire", "lamp": "street lamp", "balloon": "hot air balloon", "bird": "bird"},
    "autumn": {"house": "cottage", "dog": "puppy", "balloon": "hot air balloon"},
    "night": {
        "house": "cottage",
        "fire": "campfire",
        "lamp": "street light",
        "dog": "puppy",
        "boat": "sailboat",
    },
}
CLOTHING: dict[str, dict[str, str]] = {
    "plain": {"man": "shirt", "boy": "shirt", "woman": "dress", "girl": "dress"},
    "autumn": {"man": "jacket", "boy": "jacket", "woman": "dress", "girl": "dress"},
    "night": {"man": "jacket", "boy": "jacket", "woman": "gown", "girl": "gown"},
}
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {
        "field": ("in a green field", "on the grass"),
        "beach": ("on the beach", "on the sand by the sea"),
        "street": ("on the street", "on the road in the city"),
        "snow": ("in the snow", "on the snow near the mountains"),
        "lake": ("by the lake", "beside the blue water"),
        "hills": ("in front of the hills", "near the hills"),
    },
    "autumn": {
        "field": ("on a meadow",),
        "beach": ("at the beach",),
        "street": ("on a city street",),
        "snow": ("in the snow",),
        "lake": ("next to the lake",),
        "hills": ("in front of hills",),
    },
    "night": {
        "field": ("on a dark meadow", "across the meadow"),
        "beach": ("along the shore", "at the seaside after dark"),
        "street": ("along an empty avenue", "in the city at night"),
        "snow": ("below snowy peaks", "on the frozen ground"),
        "lake": ("at the edge of a lake", "along the water at night"),
        "hills": ("below dark hills", "in a valley at night"),
    },
}
SKIES: dict[str, dict[str, str]] = {
    "plain": {"sun": "the sun", "cloud": "a white cloud"},
    "autumn": {"sun": "a low sun", "cloud": "a white cloud"},
    "night": {
        "moon": "the full moon",
        "stars": "bright stars",
        "cloud": "a grey cloud",
        "plane": "an airplane",
    },
}
ACTIONS: dict[str, dict[str, str]] = {
    "plain": {"car": "parked", "boat": "sailing"},
    "autumn": {"car": "parked", "boat": "floating"},
    "night": {
        "running": "jogging",
        "waving": "waving",
        "car": "parked",
        "boat": "floating",
        "fire": "burning",
    },
}
TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {
        "two": (
            "{first} {is1} {doing} to the {side} of {second}.",
            "{first} {is1} next to {second} {place}.",
            "There {is1} {first} and {second} {place}.",
            "{second} {is2} on the {other} and {first} {is1} on the {side}.",
            "The picture shows {first} near {second}.",
            "{first} {is1} {doing} {place} with {second}.",
        ),
        "one": (
            "{first} {is1} {doing} {place}.",
            "There {is1} {first} {place}.",
            "The picture shows {first} {place}.",
            "{first} {is1} alone {place}.",
            "Here we see {first} {doing}.",
        ),
        "sky": (
            "{first} {is1} {doing} under {sky}.",
            "{sky} {is_sky} in the sky above {first}.",
            "There {is_sky} {sky} over {first} {place}.",
        ),
        "shapes": (
            "{first} is {relation} {second}.",
            "There is {first} {relation} {second}.",
            "{second} is {reverse} {first}.",
            "The picture shows {first} and {second}.",
            "Here we see {first} {relation} {second}.",
        ),
    },
    "autumn": {
        "two": (
            "{first} {doing} beside {second} {place} .",
            "{first} , {doing} close to {second} .",
            "{first} and {second} {place} .",
            "{first} at the {side} , {second} at the {other} .",
            "{first} {doing} {place} , {second} nearby .",
        ),
        "one": (
            "{first} {doing} {place} .",
            "{first} , {doing} all alone {place} .",
            "{first} {place} .",
            "{first} {doing} with nobody near .",
            "On a quiet day , {first} {doing} {place} .",
        ),
        "sky": ("{first} {doing} beneath {sky} .", "{sky} high above {first} , {place} ."),
    },
    "night": {
        "two": (
            "{first} {doing} beside {second} {place} .",
            "{first} , {doing} close to {second} .",
            "At night , {first} and {second} can be seen {place} .",
            "{first} at the {side} , {second} at the {other} .",
            "{first} {doing} {place} , {second} nearby .",
            "Late in the evening , {first} {doing} beside {second} .",
        ),
        "one": (
            "{first} {doing} {place} .",
            "{first} , {doing} all alone {place} .",
            "At night , {first} can be seen {place} .",
            "Late in the evening , {first} {doing} {place} .",
            "A lonely scene : {first} , {doing} in the dark .",
        ),
        "sky": (
            "{first} {doing} beneath {sky} .",
            "{sky} high above {first} , {place} .",
            "While {sky} {is_sky} overhead , {first} {is1} {doing} {place} .",
        ),
    },
}
RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def tell_scene(scene: Scene, rng: random.Random, count: int = 5) -> list[str]:
    """`count` captions (at most 5), all from different templates; some tell of what is in the sky.

    Raises:
        ValueError: `count` is not 1 to 5.
    """
    if not 1 <= count <= 5:
        raise ValueError(f"count={count}; expected 1 to 5")
    templates = TEMPLATES[scene.style]
    main = templates["shapes" if scene.place == "paper" else "two" if len(scene.things) == 2 else "one"]
    skies = list(rng.sample(templates["sky"], min(2, count))) if scene.sky else []
    chosen = skies + rng.sample(main, count - len(skies))
    rng.shuffle(chosen)
    return [_capital(template.format_map(_words(scene, rng))) for template in chosen]


def _words(scene: Scene, rng: random.Random) -> Mapping[str, str]:
    first, style = scene.things[0], scene.style
    words = {"first": name(first, style), "is1": _is(first), "doing": _doing(first, style)}
    if scene.place != "paper":
        words["place"] = rng.choice(PLACES[style][scene.place])
    if scene.relation:
        second = scene.things[1]
        words |= {"second": name(second, style), "is2": _is(second)}
        words |= {"side": scene.relation, "other": OPPOSITE[scene.relation]}
        words |= {"relation": RELATIONS[scene.relation], "reverse": RELATIONS[OPPOSITE[scene.relation]]}
    if scene.sky is not None:
        words |= {
            "sky": name(scene.sky, style),
            "is_sky": "are" if scene.sky.kind == "stars" else _is(scene.sky),
        }
    return words


def name(thing: Thing, style: str) -> str:
    """The noun phrase of a thing or a row of things: "a big red car", "three girls in blue dresses"."""
    if thing.kind in SKIES[style]:
        return SKIES[style][thing.kind]
    noun = NOUNS[style].get(thing.kind, thing.kind)
    if thing.kind in PEOPLE:
        clothing = CLOTHING[style][thing.kind]
        if thing.count > 1:
            noun = PLURALS.get(noun, noun + "s")
            return f"{NUMBERS[thing.count]} {noun} in {thing.colour} {_plural(clothing)}"
        held = ""
        if thing.held:
            verb = "holding" if style == "plain" else "carrying"
            held = f" {verb} {_article(f'{thing.held_colour} {thing.held}')}"
        return f"a {noun} in {_article(f'{thing.colour} {clothing}')}{held}"
    colour = "" if thing.kind in ("bird", "fire", "lamp", "plane") else f"{thing.colour} "
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {colour}{_plural(noun)}"
    size = {"small": "small ", "big": "big " if style == "plain" else "large "}.get(thing.size, "")
    return _article(f"{size}{colour}{noun}")


def _doing(thing: Thing, style: str) -> str:
    actions = ACTIONS[style]
    return actions.get(
        thing.pose or thing.kind, thing.pose or ("standing" if thing.kind not in SHAPES else "")
    )


def _is(thing: Thing) -> str:
    return "are" if thing.count > 1 else "is"


def _plural(noun: str) -> str:
    return noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("ss") else "s")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
