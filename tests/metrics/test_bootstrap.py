"""Intervals are the percentile bootstrap, whatever the score is made of."""

import numpy as np
import pytest

from src.metrics.bootstrap import Score, difference, intervals, mean, token_mean


def test_equals_resampling_one_by_one():
    values = np.random.default_rng(2).random((30, 2))
    ratio = Score(0.0, None, values, lambda sums: sums[:, 0] / sums[:, 1])
    resamples = [values[rows].sum(axis=0) for rows in np.random.default_rng(0).integers(30, size=(50, 30))]
    expected = np.percentile([a / b for a, b in resamples], [2.5, 97.5])
    found = intervals({"no interval": Score(1.0), "ratio": ratio}, samples=50, seed=0)
    assert found == {"ratio": pytest.approx(tuple(expected))}


def test_a_difference_draws_the_same_images_for_both():
    rng = np.random.default_rng(3)
    losses, tokens = rng.random((2, 40)), rng.integers(5, 50, size=40).astype(float)
    score, base = (token_mean(values, tokens) for values in losses)
    gain = difference(score, base)
    draws = np.random.default_rng(0).integers(40, size=(60, 40))
    expected = [np.subtract(*(np.average(values[rows], weights=tokens[rows]) for values in losses)) for rows in draws]
    assert gain.corpus == pytest.approx(np.subtract(*np.average(losses, axis=1, weights=tokens)))
    assert intervals({"gain": gain}, samples=60)["gain"] == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
    assert intervals({"gain": difference(score, score)})["gain"] == (0, 0)
    assert difference(Score(1.0), score) is None


def test_one_image_gives_an_interval_of_no_width_and_no_samples_give_none():
    assert intervals({"score": mean(np.array([0.25]))}) == {"score": (0.25, 0.25)}
    assert intervals({}) == intervals({"score": mean(np.ones(3))}, samples=0) == {}
