"""Percentile bootstrap intervals over images, from sums of sufficient statistics.

A score is a function of sums over images (BLEU: of n-gram counts; CIDEr-D: of its own values), so a resample
costs one row of a matrix product. N images, R resamples, K statistics.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAX_DRAWS_PER_CHUNK = 4_000_000  # bounds memory: this many 8-byte numbers a few times over


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


def intervals(
    statistics: Mapping[str, SufficientStatistic], samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Return the central `level` of each score over `samples` draws of N images with replacement.

    All scores see the same draws. Same input and seed, same intervals. One image gives intervals of no width.
    """
    if not statistics or samples < 1:
        return {}
    columns = np.concatenate([statistic.per_image for statistic in statistics.values()], axis=1)  # (N, K)
    sums = _resampled_sums(columns, samples, np.random.default_rng(seed))  # (R, K)
    tail = 50 * (1 - level)
    bounds, start = {}, 0
    for name, statistic in statistics.items():
        stop = start + statistic.per_image.shape[1]
        low, high = np.percentile(statistic.combine(sums[:, start:stop]), [tail, 100 - tail])
        bounds[name], start = (float(low), float(high)), stop
    return bounds


def _resampled_sums(columns: Floats, samples: int, rng: np.random.Generator) -> Floats:
    """(N, K) -> (R, K): sums of the columns over N images drawn with replacement, R times."""
    n = len(columns)
    chunk = max(1, MAX_DRAWS_PER_CHUNK // n)
    rows = []
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        draws = rng.integers(n, size=(count, n)) + np.arange(count)[:, None] * n
        multiplicities = np.bincount(draws.ravel(), minlength=count * n).reshape(count, n)
        rows.append(multiplicities @ columns)
    return np.concatenate(rows)
