"""Sentences of drawn scenes: five, all different, true, and in the style's own way."""

import random

import pytest

from src.demo.synthetic.scene import STYLES, Scene, Thing, sample_scene
from src.demo.synthetic.scene_captions import tell_scene
from src.demo.synthetic.vocabulary import name

CAR = Thing("car", "red", 0.25, 0.9, 0.2, size="big")
GIRL = Thing("girl", "blue", 0.75, 0.9, 0.3, pose="waving", held="umbrella", held_colour="yellow")


def told(style: str, count: int = 200) -> list[tuple[Scene, list[str]]]:
    pairs = []
    for index in range(count):
        rng = random.Random(index)
        scene = sample_scene(rng, style)
        pairs.append((scene, tell_scene(scene, rng)))
    return pairs


@pytest.mark.parametrize("style", STYLES)
def test_five_captions_all_different_and_nothing_left_to_fill_in(style):
    for _, captions in told(style):
        assert len(set(captions)) == 5
        assert not any("{" in caption or "  " in caption for caption in captions)
        assert all(caption[0].isupper() for caption in captions)


@pytest.mark.parametrize("style", STYLES)
def test_every_caption_names_the_first_thing_by_its_colour(style):
    for scene, captions in told(style, 100):
        if scene.things[0].kind != "lamp" and scene.things[0].kind != "fire":
            assert all(scene.things[0].colour in caption.lower() for caption in captions)


def test_the_two_styles_share_almost_no_sentence():
    plain, night = (
        {caption for _, captions in told(style) for caption in captions} for style in ("plain", "night")
    )
    assert not plain & night
    assert all(caption.endswith(" .") for caption in night)
    assert not any(" ." in caption for caption in plain)


def test_the_side_that_is_told_is_the_side_that_is_drawn():
    for style in STYLES:
        for scene, captions in told(style, 100):
            if scene.relation in ("left", "right") and scene.place != "paper":
                first, second = scene.things
                assert (first.x < second.x) == (scene.relation == "left")
                assert not any(
                    f"to the {'right' if scene.relation == 'left' else 'left'} of" in caption
                    for caption in captions
                )


def test_names_by_hand():
    night = Scene("night", "field", (CAR, GIRL), None, "left")
    rng = random.Random(0)
    two = Thing("woman", "green", 0.5, 0.9, 0.4, count=2)

    assert name(CAR, night, rng) == "a large red car"
    assert name(GIRL, night, rng) == "a girl in a blue gown carrying a yellow umbrella"
    assert name(two, night, rng) == "two women in green gowns"


def test_a_sky_and_an_evening_are_told_of():
    moon = Thing("moon", "yellow", 0.5, 0.2, 0.2)
    scene = Scene("plain", "snow", (GIRL,), moon, evening=True)

    captions = " ".join(tell_scene(scene, random.Random(1)))

    assert captions.count("moon") == 2
    assert any(word in captions for word in ("evening", "dark", "night"))


@pytest.mark.parametrize("count", [0, 6])
def test_only_one_to_five_captions(count):
    with pytest.raises(ValueError, match=f"count={count}; expected 1 to 5"):
        tell_scene(Scene("plain", "field", (CAR,), None), random.Random(0), count)
