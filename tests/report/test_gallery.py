"""Which pictures are shown under which heading."""

from src.report.gallery import MOST_PICTURES, PER_VIEW, VIEWS, choose_pictures, gain_of
from src.report.run_files import Prediction


def picture(number: int, score: float | None = None, base: float | None = None) -> Prediction:
    scores = {"cider_d": score, "zero_shot_cider_d": base}
    known = {name: value for name, value in scores.items() if value is not None}
    return Prediction(f"{number}.jpg", "", "a dog", None, (), "", None, known)


def view(shown, name) -> list[str]:
    members = [found for found in shown if name in found.ranks]
    return [found.prediction.image_id for found in sorted(members, key=lambda found: found.ranks[name])]


def test_views_are_ranked_from_their_foremost_picture():
    rows = [picture(0, 1.0, 0.5), picture(1, 3.0, 0.0), picture(2, 0.5, 2.0), picture(3, 2.0, 2.0)]
    shown, metric = choose_pictures(rows)
    assert metric == "cider_d"
    assert view(shown, "best") == ["1.jpg", "3.jpg", "0.jpg", "2.jpg"]
    assert view(shown, "worst") == ["2.jpg", "0.jpg", "3.jpg", "1.jpg"]
    assert view(shown, "improved") == ["1.jpg", "0.jpg"]
    assert view(shown, "harmed") == ["2.jpg"]
    assert sorted(view(shown, "random")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_a_large_set_is_bounded_and_every_view_is_complete():
    rows = [picture(number, number / 100, (number * 7 % 100) / 20) for number in range(1000)]
    shown, _ = choose_pictures(rows)
    assert len(shown) == MOST_PICTURES
    assert [found.prediction.image_id for found in shown] == [
        r.image_id for r in rows if r in [s.prediction for s in shown]
    ]
    for name in VIEWS:
        assert len(view(shown, name)) == PER_VIEW
    assert view(shown, "best")[0] == "999.jpg"


def test_the_random_view_depends_on_the_seed_alone():
    rows = [picture(number, number / 10) for number in range(100)]
    unscored = [picture(number) for number in range(100)]
    assert view(choose_pictures(rows)[0], "random") == view(choose_pictures(unscored)[0], "random")
    assert view(choose_pictures(rows)[0], "random") != view(choose_pictures(rows, seed=1)[0], "random")


def test_without_scores_there_is_only_the_random_view():
    shown, metric = choose_pictures([picture(0), picture(1)])
    assert metric is None
    assert {name for found in shown for name in found.ranks} == {"random"}


def test_a_gain_needs_both_scores():
    assert gain_of(picture(0, 2.0, 0.5), "cider_d") == 1.5
    assert gain_of(picture(0, 2.0), "cider_d") is None
    assert gain_of(picture(0, None, 2.0), "cider_d") is None


def test_no_pictures_give_an_empty_gallery():
    assert choose_pictures([]) == ([], None)
