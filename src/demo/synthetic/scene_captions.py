"""Describe synthetic scenes: several captions each, all worded differently.

"plain" captions are school-book sentences. "night" captions are like Flickr's: present participles, commas
within a sentence, a blank before every punctuation mark, other words for the same things.
"""

import random

from src.demo.synthetic.scene import PEOPLE, TABLES, Scene, Thing

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
NUMBERS = {2: "two", 3: "three"}
PLURALS = {"man": "men", "woman": "women"}
NO_COLOUR = ("bird", "fire", "lamp", "plane")
RARE = 0.15  # how often a plain caption takes the night style's word, so that the tiny model has seen it
ACTIONS = {"cat": "sitting", "car": "parked", "boat": "sailing", "fire": "burning"}
WITH_ARTICLE = ("sun", "moon", "stars", "cloud")


def describe_scene(scene: Scene, rng: random.Random, count: int = 5) -> list[str]:
    """Return `count` captions (at most 5), all from different templates; some mention what is in the sky.

    Raises:
        ValueError: `count` is not 1 to 5.
    """
    if not 1 <= count <= 5:
        raise ValueError(f"count={count}; expected 1 to 5")
    templates = TABLES["templates"][scene.style]
    main = templates["shapes" if scene.place == "paper" else "two" if len(scene.things) == 2 else "one"]
    chosen = rng.sample(templates["sky"], 2) if scene.sky else []
    chosen += [rng.choice(templates["evening"])] if scene.evening else []
    chosen = (chosen + rng.sample(main, 5 - len(chosen)))[:count]
    rng.shuffle(chosen)
    captions = [template.format_map(_slots(scene, rng)) for template in chosen]
    return [caption[0].upper() + caption[1:] for caption in captions]


def _slots(scene: Scene, rng: random.Random) -> dict[str, str]:
    """Return what fills the fields of a template; each call samples its words anew."""
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
    """Name a thing or a row of things: "a big red car", "three girls in blue dresses"."""
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
