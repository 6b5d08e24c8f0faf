"""Scores as rows."""

import pytest

from src.report.scores import find_score, number, other_scores, score_rows

METRICS = {
    "test/cider_d": 2.0, "test/cider_d_low": 1.8, "test/cider_d_high": 2.2,
    "zero_shot/test/cider_d": 0.5, "zero_shot/test/cider_d_low": 0.4, "zero_shot/test/cider_d_high": 0.6,
    "test/loss": 1.0, "zero_shot/test/loss": 3.0, "test/mean_length": 9.25,
    "val/loss": 7.0, "time/fit_seconds": 3.0,
}  # fmt: skip


def test_both_models_stand_in_one_row_with_their_intervals():
    cider, loss = score_rows(METRICS)
    assert (cider.label, cider.tuned.interval, cider.base.text) == ("CIDEr-D", "1.800 – 2.200", "0.500")
    assert cider.change == 1.5
    assert cider.apart
    assert 80 < cider.share(2.2) < 100
    assert cider.share(-1) == 0
    assert loss.tuned.interval == ""


def test_a_lower_loss_is_a_gain():
    loss = score_rows(METRICS)[1]
    assert loss.change == 2.0
    assert not loss.apart  # without intervals nobody knows


def test_touching_intervals_are_not_apart():
    assert not score_rows(METRICS | {"zero_shot/test/cider_d_high": 1.9})[0].apart


def test_one_model_alone_has_no_change():
    row = score_rows({"test/cider_d": 1.0})[0]
    assert row.base is None
    assert row.change is None
    assert not row.apart


def test_all_zero_scores_still_have_a_scale():
    assert score_rows({"test/bleu_4": 0.0})[0].share(0.0) == 0


def test_another_split_is_found():
    assert [row.key for row in score_rows({"val/cider_d": 1.0, "test/loss": 2.0}, "val")] == ["cider_d"]


def test_what_else_was_measured_is_listed_without_intervals():
    more = METRICS | {"test/mean_length_low": 9.0, "zero_shot/test/distinct": 0.1}
    assert other_scores(more) == [("distinct", "–", "0.100"), ("mean length", "9.250", "–")]


def test_half_an_interval_is_none():
    assert find_score({"a": 1.0, "a_low": 0.5}, "a").interval == ""
    assert find_score({}, "a") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.2134, "0.213"), (2.3, "2.300"), (11.23, "11.2"), (1204.4, "1204"), (-0.5, "-0.500")],
)
def test_numbers_have_as_many_decimals_as_help(value, text):
    assert number(value) == text
