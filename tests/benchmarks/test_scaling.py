"""Scaling: the line through measurements, the projections from rates, and the arguments."""

import json

import pytest

from benchmarks.scaling import RUNS, Rates, line, main, numbers, project, projections, report
from benchmarks.scaling_runs import RepeatedFeatures, Workshop, median_cost
from src.utils.errors import UserError

RATES = Rates(
    setup_pair=0.0, backbone_image=0.1, image=0.05, token=0.001, published_caption=1.5, feature_bytes=300_000,
    all_weights=200_000_000, trained_weights=10_000_000,
)  # fmt: skip


def test_a_line_through_measurements_that_lie_on_one_is_exact():
    start, slope, residual = line([10, 20, 30], [0.15, 0.25, 0.35])
    assert (start, slope) == pytest.approx((0.05, 0.01))
    assert residual < 1e-9


def test_the_largest_residual_is_relative():
    assert line([1, 2, 3], [1.0, 2.4, 3.0])[2] > 0.05


def test_hours_follow_the_stated_formulas():
    found = project(RATES, images=2000, captions=5, tokens=10, epochs=5)
    assert found["cache_hours"] * 3600 == pytest.approx(200)
    assert found["hours"] * 3600 == pytest.approx(200 + 5 * 2000 * (0.05 + 0.001 * 50))
    assert found["published_hours"] * 3600 == pytest.approx(5 * 10_000 * 1.5)


def test_disk_holds_the_cache_and_two_checkpoints():
    found = project(RATES, images=1000, captions=1, tokens=10, epochs=5)
    assert found["disk_gb"] == pytest.approx(0.3 + 0.24)
    assert found["published_disk_gb"] == pytest.approx(2 * (0.8 + 0.08))


def test_setup_counts_by_the_pair():
    from dataclasses import replace

    plain, slow = (
        project(rates, 100, 5, 10, 1)["hours"] for rates in (RATES, replace(RATES, setup_pair=0.01))
    )
    assert (slow - plain) * 3600 == pytest.approx(5)


def test_only_medicat_has_the_length_of_its_captions():
    short, long = projections(RATES, 10, 10, 5), projections(RATES, 10, 90, 5)
    assert set(short) == set(RUNS)
    assert long["MedICaT"]["hours"] > short["MedICaT"]["hours"]
    assert long["Flickr30k"] == short["Flickr30k"]


def test_the_tables_end_with_one_line_of_json(capsys):
    result = {
        "seconds_per_caption": {"pairs": {100: 0.01}, "captions_per_image": {1: 0.02, 2: 0.015}},
        "setup_seconds": {100: 0.5},
        "captions_per_second": {"processes": {1: 100.0, 2: 150.0}},
        "rates": {"image": 0.1},
        "largest_residual": 0.03,
        "projection": projections(RATES, 10, 90, 5),
    }
    report(result, {"images": 16, "epochs": 5})
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["projection"]["Flickr30k"]["hours"] > 0
    assert any(text.split()[:3] == ["2", "15", "30"] for text in lines)  # K, ms a caption, ms an image


def test_the_median_step_counts_without_the_first():
    assert median_cost([0.0, 9.0, 10.0, 11.0, 17.0], [10, 10, 10, 10, 10]) == pytest.approx(0.1)


def test_repeated_features_are_the_same_for_the_same_image():
    import torch

    store = RepeatedFeatures(torch.arange(3.0).reshape(3, 1, 1))
    assert {float(store.get(f"{number}.jpg")) for number in range(30)} == {0.0, 1.0, 2.0}
    assert store.get("a.jpg") is not None
    assert float(store.get("a.jpg")) == float(store.get("a.jpg"))


def test_a_missing_sample_names_the_argument_that_helps(tmp_path):
    workshop = Workshop.__new__(Workshop)
    workshop.settings = {"medicat_dir": str(tmp_path / "nothing")}
    with pytest.raises(UserError, match="or set medicat_tokens="):
        workshop.medicat_tokens()


@pytest.mark.parametrize("text", ["many", "10", ""])
def test_pairs_must_be_numbers(text):
    with pytest.raises(UserError, match=f"pairs={text}; expected whole numbers from 100 on"):
        numbers(text)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--help"], "'--help' is no argument; expected checkpoint="), (["step=3"], "did you mean steps=")],
)
def test_a_wrong_argument_is_one_line(words, told):
    with pytest.raises(UserError, match=told) as caught:
        main(words)
    assert "\n" not in str(caught.value)
