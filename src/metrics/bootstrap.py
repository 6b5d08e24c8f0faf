"""Percentile bootstrap intervals over images, from sums of sufficient statistics.

A score is a function of sums over images (BLEU: of n-gram counts; CIDEr-D: of its own values), so a resample
costs one row of a matrix product. N images, R resamples, K statistics.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class SufficientStatistic(NamedTuple):
    """per_image: (N, K). combine: sums over N images, (R, K) -> scores (R,)."""

    per_image: Floats
    combine: Callable[[Floats], Floats]


class MetricResult(NamedTuple):
    """By name: scores of the whole set, scores of each image (N,), and the statistics to resample."""

    corpus: dict[str, float]
    per_image: dict[str, Floats]
    statistics: dict[str, SufficientStatistic]

    def __or__(self, other: "MetricResult") -> "MetricResult":  # type: ignore[override]
        pairs: Any = zip(self, other, strict=True)
        return MetricResult(*(mine | theirs for mine, theirs in pairs))


def mean(per_image: Floats) -> SufficientStatistic:
    """Return the statistic of a score that is the mean of its per-image values (N,)."""
    values = np.asarray(per_image, np.float64).reshape(-1, 1)
    return SufficientStatistic(values, lambda sums: sums[:, 0] / len(values))


def ratio(sums: Floats) -> Floats:
    """(R, 2) numerators and denominators -> (R,), 0 where the denominator is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)


def intervals(
    statistics: Mapping[str, SufficientStatistic], samples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the central 95% of each score over `samples` draws of N images with replacement.

    All scores see the same draws. Same input and seed, same intervals. One image gives intervals of no width.
    """
    if not statistics or samples < 1:
        return {}
    columns = np.concatenate([statistic.per_image for statistic in statistics.values()], axis=1)  # (N, K)
    rng, n = np.random.default_rng(seed), len(columns)
    draws = (rng.integers(n, size=n) for _ in range(samples))
    sums = np.stack([np.bincount(rows, minlength=n) @ columns for rows in draws])  # (R, K)
    bounds, start = {}, 0
    for name, statistic in statistics.items():
        stop = start + statistic.per_image.shape[1]
        low, high = np.percentile(statistic.combine(sums[:, start:stop]), [2.5, 97.5])
        bounds[name], start = (float(low), float(high)), stop
    return bounds
