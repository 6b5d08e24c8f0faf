"""What people might say of a drawn scene: several sentences, each worded differently.

"plain" speaks in school-book sentences. "night" speaks as the captions of Flickr do: present participles,
commas within a sentence, a blank before every punctuation mark, other words for the same things.
"""

import random

from src.demo.synthetic.scene import Scene
from src.demo.synthetic.vocabulary import be, doing, name, word

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {
        "field": ("in a green field", "on the grass", "on the meadow"),
        "beach": ("on the beach", "on the sand by the sea", "on the shore"),
        "street": ("on the street", "on the road in the city", "on the avenue"),
        "snow": ("in the snow", "on the snow near the mountains", "on the frozen ground"),
        "lake": ("by the lake", "beside the blue water", "at the edge of the lake"),
        "hills": ("in front of the hills", "near the hills", "in the valley"),
    },
    "night": {
        "field": ("on a dark meadow", "out on the meadow"),
        "beach": ("along the shore", "on the shore after dark"),
        "street": ("along an empty avenue", "in the city at night"),
        "snow": ("below snowy mountains", "on the frozen ground"),
        "lake": ("at the edge of a lake", "along the water at night"),
        "hills": ("below dark hills", "in a valley at night"),
    },
}
TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {
        "two": (
            "{first} {is1} {doing} to the {side} of {second}.",
            "{first} {is1} {beside} {second} {place}.",
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
            "{first} can be seen {place}.",
        ),
        "sky": (
            "{first} {is1} {doing} {under} {sky}.",
            "{sky} {is_sky} in the sky above {first}.",
            "There {is_sky} {sky} over {first} {place}.",
        ),
        "evening": (
            "Late in the evening {first} {is1} {doing} {place}.",
            "It is dark and {first} {is1} {doing} {place}.",
            "{first} {is1} {doing} {place} at night.",
        ),
        "shapes": (
            "{first} is {relation} {second}.",
            "There is {first} {relation} {second}.",
            "{second} is {reverse} {first}.",
            "The picture shows {first} and {second}.",
            "{first} can be seen {relation} {second}.",
        ),
    },
    "night": {
        "two": (
            "{first} {doing} {beside} {second} {place} .",
            "{first} , {doing} close to {second} .",
            "At night , {first} and {second} can be seen {place} .",
            "{first} at the {side} , {second} at the {other} .",
            "{first} {doing} {place} , {second} nearby .",
            "Late in the evening , {first} {doing} {beside} {second} .",
        ),
        "one": (
            "{first} {doing} {place} .",
            "{first} , {doing} all alone {place} .",
            "At night , {first} can be seen {place} .",
            "Late in the evening , {first} {doing} {place} .",
            "A lonely scene : {first} , {doing} in the dark .",
        ),
        "sky": (
            "{first} {doing} {under} {sky} .",
            "{sky} high above {first} , {place} .",
            "While {sky} {is_sky} overhead , {first} {is1} {doing} {place} .",
        ),
    },
}


def tell_scene(scene: Scene, rng: random.Random, count: int = 5) -> list[str]:
    """`count` captions (at most 5), all from different templates; some tell of what is in the sky.

    Raises:
        ValueError: `count` is not 1 to 5.
    """
    if not 1 <= count <= 5:
        raise ValueError(f"count={count}; expected 1 to 5")
    templates = TEMPLATES[scene.style]
    main = templates["shapes" if scene.place == "paper" else "two" if len(scene.things) == 2 else "one"]
    chosen = rng.sample(templates["sky"], 2) if scene.sky else []
    chosen += [rng.choice(templates["evening"])] if scene.evening else []
    chosen = (chosen + rng.sample(main, 5 - len(chosen)))[:count]
    rng.shuffle(chosen)
    return [_capital(template.format_map(_words(scene, rng))) for template in chosen]


def _words(scene: Scene, rng: random.Random) -> dict[str, str]:
    first, style = scene.things[0], scene.style
    words = {"first": name(first, scene, rng), "is1": be(first), "doing": doing(first, style, rng)}
    words |= {"beside": word("next to", style, rng), "under": word("under", style, rng)}
    if scene.place != "paper":
        words["place"] = rng.choice(PLACES[style][scene.place])
    if scene.relation:
        second = scene.things[1]
        words |= {"second": name(second, scene, rng), "is2": be(second)}
        words |= {"side": scene.relation, "other": OPPOSITE[scene.relation]}
        words |= {"relation": RELATIONS[scene.relation], "reverse": RELATIONS[OPPOSITE[scene.relation]]}
    if scene.sky is not None:
        words |= {"sky": name(scene.sky, scene, rng), "is_sky": be(scene.sky)}
    return words


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
