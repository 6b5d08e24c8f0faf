"""The words for what is in a drawn scene, in both ways of telling."""

import random

from src.demo.synthetic.scene import PEOPLE, Scene, Thing

NUMBERS = {2: "two", 3: "three"}
PLURALS = {"man": "men", "woman": "women"}
NO_COLOUR = ("bird", "fire", "lamp", "plane")
RARE = 0.15  # how often a plain caption takes the other way's word: it has been heard, as in any large text
# The word of the plain way and that of the night way, where they differ.
WORDS: dict[str, tuple[str, str]] = {
    "house": ("house", "cottage"),
    "dog": ("dog", "puppy"),
    "boat": ("boat", "sailboat"),
    "lamp": ("street lamp", "street light"),
    "plane": ("plane", "airplane"),
    "balloon": ("hot air balloon", "balloon"),
    "fire": ("fire", "campfire"),
    "shirt": ("shirt", "jacket"),
    "dress": ("dress", "gown"),
    "holding": ("holding", "carrying"),
    "running": ("running", "jogging"),
    "sailing": ("sailing", "floating"),
    "big": ("big", "large"),
    "next to": ("next to", "beside"),
    "under": ("under", "beneath"),
    "sun": ("the sun", "the bright sun"),
    "moon": ("the moon", "the full moon"),
    "stars": ("stars", "bright stars"),
    "cloud": ("a white cloud", "a grey cloud"),
}
DOING = {"cat": "sitting", "car": "parked", "boat": "sailing", "fire": "burning"}
WITH_ARTICLE = ("sun", "moon", "stars", "cloud")


def word(key: str, style: str, rng: random.Random) -> str:
    """The style's word for `key`; plain takes the other one now and then."""
    plain, night = WORDS.get(key, (key, key))
    return night if style == "night" or rng.random() < RARE else plain


def name(thing: Thing, scene: Scene, rng: random.Random) -> str:
    """The noun phrase of a thing or a row of things: "a big red car", "three girls in blue dresses"."""
    style = scene.style
    noun = word(thing.kind, style, rng)
    if thing.kind in WITH_ARTICLE:
        return noun
    if thing.kind in PEOPLE:
        clothing = word("dress" if thing.kind in ("woman", "girl") else "shirt", style, rng)
        if thing.count > 1:
            noun = PLURALS.get(noun, noun + "s")
            return f"{NUMBERS[thing.count]} {noun} in {thing.colour} {_plural(clothing)}"
        held = ""
        if thing.held:
            held = f" {word('holding', style, rng)} {_article(f'{thing.held_colour} {thing.held}')}"
        return f"a {noun} in {_article(f'{thing.colour} {clothing}')}{held}"
    colour = "" if thing.kind in NO_COLOUR else f"{thing.colour} "
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {colour}{_plural(noun)}"
    size = f"{word(thing.size, style, rng)} " if thing.size else ""
    return _article(f"{size}{colour}{noun}")


def doing(thing: Thing, style: str, rng: random.Random) -> str:
    """What the thing does, as a participle."""
    return word(thing.pose or DOING.get(thing.kind, "standing"), style, rng)


def be(thing: Thing) -> str:
    """ "is" or "are"."""
    return "are" if thing.count > 1 or thing.kind == "stars" else "is"


def _plural(noun: str) -> str:
    return noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("ss") else "s")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
