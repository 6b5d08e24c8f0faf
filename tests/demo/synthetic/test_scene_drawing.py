"""Pictures of scenes: what the captions tell of can be seen."""

import random

import numpy as np
import pytest

from src.demo.synthetic.scene import COLOURS, PEOPLE, Scene, Thing
from src.demo.synthetic.scene_drawing import LOOKS, draw_scene
from src.demo.synthetic.things import DRAWERS

SIZE = 96


def pixels(*things: Thing, style: str = "plain", place: str = "field", evening: bool = False) -> np.ndarray:
    scene = Scene(style, place, things, None, evening=evening)
    return np.asarray(draw_scene(scene, SIZE, random.Random(0)), np.int32)


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture - colour).sum(-1) < 40).mean())


@pytest.mark.parametrize("style", ["plain", "night"])
def test_a_car_has_the_colour_that_is_told(style):
    red, blue = (pixels(Thing("car", colour, 0.5, 0.9, 0.3), style=style) for colour in ("red", "blue"))
    palette = LOOKS[style].palette

    assert share_of(red, palette["red"]) > 0.02 > share_of(blue, palette["red"])
    assert share_of(blue, palette["blue"]) > 0.02 > share_of(red, palette["blue"])


def test_left_is_left_and_big_is_bigger():
    purple = LOOKS["plain"].palette["purple"]
    small = pixels(Thing("square", "purple", 0.25, 0.8, 0.2), place="paper")
    big = pixels(Thing("square", "purple", 0.25, 0.8, 0.4), place="paper")

    assert share_of(small[:, : SIZE // 2], purple) > 0.02
    assert share_of(small[:, SIZE // 2 :], purple) == 0
    assert share_of(big, purple) > 2 * share_of(small, purple)


def test_two_dogs_take_more_room_than_one():
    brown = LOOKS["plain"].palette["brown"]
    one, two = (share_of(pixels(Thing("dog", "brown", 0.5, 0.9, 0.2, count=n)), brown) for n in (1, 2))

    assert two > 1.5 * one


def test_a_row_at_the_edge_is_moved_in():
    picture = pixels(Thing("dog", "black", 0.0, 0.9, 0.2, count=3), place="snow")
    black = np.abs(picture - LOOKS["plain"].palette["black"]).sum(-1) < 40

    assert black.any()
    assert not black[:, 0].any()


def test_evening_is_darker_and_night_darker_still():
    man = Thing("man", "red", 0.5, 0.9, 0.4, pose="standing")
    day, evening, night = pixels(man), pixels(man, evening=True), pixels(man, style="night")

    assert day.mean() > evening.mean() > night.mean()


@pytest.mark.parametrize("style", ["plain", "night"])
@pytest.mark.parametrize("place", ["field", "beach", "street", "snow", "lake", "hills"])
def test_every_place_looks_its_own_way(style, place):
    picture = pixels(style=style, place=place)

    assert picture.shape == (SIZE, SIZE, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_every_kind_can_be_drawn():
    empty = pixels()
    for kind in COLOURS:
        assert kind in DRAWERS or kind in PEOPLE
        assert (pixels(Thing(kind, COLOURS[kind][0], 0.5, 0.8, 0.3)) != empty).any(), kind
