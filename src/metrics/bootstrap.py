"""Percentile bootstrap intervals over images, from sums of sufficient statistics.

A score is a function of sums over images (BLEU: of n-gram counts; CIDEr-D: of its own values), so a resample costs one
row of a matrix product. N images, R resamples, K statistics.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ratio(sums: Floats) -> Floats:
    """(R, 2) numerators and denominators -> (R,), 0 where the denominator is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)


class Score(NamedTuple):
    """A score of the whole set and, where it has them, of each image (N,) and its statistics, for an interval.

    statistics: of each image, (N, K). combine: their sums over N images, (R, K) -> scores (R,).
    """

    corpus: float
    per_image: Floats | None = None
    statistics: Floats | None = None
    combine: Callable[[Floats], Floats] = ratio


def mean(values: Floats) -> Score:
    """Return the score that is the mean of those of each image (N,)."""
    return Score(float(np.mean(values)), values, values[:, None], lambda sums: sums[:, 0] / len(values))


def token_mean(means: Floats, num_tokens: Floats) -> Score:
    """Return the mean over all tokens of values that are means over the tokens of each image, (N,) and (N,)."""
    statistics = np.stack([means * num_tokens, num_tokens], axis=1)
    return Score(float(ratio(statistics.sum(axis=0, keepdims=True))[0]), means, statistics)


def difference(score: Score, base: Score) -> Score | None:
    """Return score less base over the same images, each drawn for both; None without statistics of images."""
    if score.per_image is None or score.statistics is None or base.statistics is None:
        return None
    width, statistics = score.statistics.shape[1], np.concatenate([score.statistics, base.statistics], axis=1)

    def combine(sums: Floats) -> Floats:
        return score.combine(sums[:, :width]) - base.combine(sums[:, width:])

    return Score(score.corpus - base.corpus, None, statistics, combine)


def intervals(scores: Mapping[str, Score], samples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return the central 95% of each score that has statistics, over `samples` draws of N images with replacement.

    All scores see the same draws. Same input and seed, same intervals. One image gives intervals of no width.
    """
    found = [(name, one.statistics, one.combine) for name, one in scores.items() if one.statistics is not None]
    if not found or samples < 1:
        return {}
    columns = np.concatenate([statistics for _, statistics, _ in found], axis=1)  # (N, K)
    rng, n = np.random.default_rng(seed), len(columns)
    draws = (rng.integers(n, size=n) for _ in range(samples))
    sums = np.stack([np.bincount(rows, minlength=n) @ columns for rows in draws])  # (R, K)
    bounds, start = {}, 0
    for name, statistics, combine in found:
        stop = start + statistics.shape[1]
        low, high = np.percentile(combine(sums[:, start:stop]), [2.5, 97.5])
        bounds[name], start = (float(low), float(high)), stop
    return bounds
