"""Which images are shown under which heading, small enough to be carried."""

import base64
import io

import numpy as np
from PIL import Image

from src.report.html import MAX_BYTES, MAX_IMAGES, PER_VIEW, VIEWS, choose_images, thumbnail
from src.report.run_files import Prediction


def image(number: int, score: float | None = None, base: float | None = None) -> Prediction:
    scores = {"cider_d": score, "zero_shot_cider_d": base}
    known = {name: value for name, value in scores.items() if value is not None}
    return Prediction(f"{number}.jpg", "", "a dog", None, (), "", None, known)


def view(ranks, name) -> list[str]:
    members = [row for row in ranks if name in ranks[row]]
    return [f"{row}.jpg" for row in sorted(members, key=lambda row: ranks[row][name])]


def test_views_are_ranked():
    rows = [image(0, 1.0, 0.5), image(1, 3.0, 0.0), image(2, 0.5, 2.0), image(3, 2.0, 2.0)]
    shown, metric = choose_images(rows)
    assert metric == "cider_d"
    assert view(shown, "best") == ["1.jpg", "3.jpg", "0.jpg", "2.jpg"]
    assert view(shown, "worst") == ["2.jpg", "0.jpg", "3.jpg", "1.jpg"]
    assert view(shown, "improved") == ["1.jpg", "0.jpg"]
    assert view(shown, "harmed") == ["2.jpg"]
    assert sorted(view(shown, "random")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_a_large_set_is_bounded_and_every_view_is_complete():
    rows = [image(number, number / 100, (number * 7 % 100) / 20) for number in range(1000)]
    shown, _ = choose_images(rows)
    assert len(shown) == MAX_IMAGES
    assert all(len(view(shown, name)) == PER_VIEW for name in VIEWS)
    assert view(shown, "best")[0] == "999.jpg"


def test_the_random_view_does_not_depend_on_the_scores():
    scored, unscored = (
        [image(number, number / 10) for number in range(100)],
        [image(number) for number in range(100)],
    )
    assert view(choose_images(scored)[0], "random") == view(choose_images(unscored)[0], "random")
    shown, metric = choose_images(unscored)
    assert metric is None
    assert {name for row in shown for name in shown[row]} == {"random"}
    assert choose_images([]) == ({}, None)


def test_a_thumbnail_of_noise_stays_small():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    found = thumbnail(noise)
    data = base64.b64decode(found["uri"].removeprefix("data:image/jpeg;base64,"))
    assert len(data) <= MAX_BYTES
    with Image.open(io.BytesIO(data)) as shown:
        assert shown.size == (found["width"], found["height"])
        assert max(shown.size) <= 384
