"""How far a score would move on another sample of images: percentile bootstrap over images.

A score is a function of sums over images (BLEU: of n-gram counts; CIDEr-D: of its own values), so a resample
costs one row of a matrix product. N images, R resamples, K statistics.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS_AT_ONCE = 4_000_000  # bounds memory: this many 8-byte numbers a few times over


class Statistic(NamedTuple):
    """per_image: (N, K). combine: sums over N images, (R, K) -> scores (R,)."""

    per_image: Floats
    combine: Callable[[Floats], Floats]


class Parts(NamedTuple):
    """By name: scores of the whole set, scores of each image (N,), and what the intervals are drawn from."""

    corpus: dict[str, float]
    per_image: dict[str, Floats]
    statistics: dict[str, Statistic]

    def __or__(self, other: "Parts") -> "Parts":  # type: ignore[override]
        return Parts(
            self.corpus | other.corpus,
            self.per_image | other.per_image,
            self.statistics | other.statistics,
        )


def mean(per_image: Floats) -> Statistic:
    """A score that is the mean of its per-image values (N,)."""
    values = np.asarray(per_image, np.float64).reshape(-1, 1)
    return Statistic(values, lambda sums: sums[:, 0] / len(values))


def intervals(
    statistics: Mapping[str, Statistic], samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """The central `level` of each score over `samples` draws of N images with replacement.

    All scores see the same draws. Same input and seed, same intervals. One image gives intervals of no width.
    """
    if not statistics or samples < 1:
        return {}
    columns = np.concatenate([statistic.per_image for statistic in statistics.values()], axis=1)  # (N, K)
    sums = _resampled_sums(columns, samples, np.random.default_rng(seed))  # (R, K)
    tail = 50 * (1 - level)
    found, start = {}, 0
    for name, statistic in statistics.items():
        width = statistic.per_image.shape[1]
        scores = statistic.combine(sums[:, start : start + width])
        low, high = np.percentile(scores, [tail, 100 - tail])
        found[name] = (float(low), float(high))
        start += width
    return found


def _resampled_sums(columns: Floats, samples: int, draw: np.random.Generator) -> Floats:
    """(N, K) -> (R, K): sums of the columns over N images drawn with replacement, R times."""
    images = len(columns)
    at_once = max(1, DRAWS_AT_ONCE // images)
    rows = []
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        drawn = draw.integers(images, size=(count, images)) + np.arange(count)[:, None] * images
        times = np.bincount(drawn.ravel(), minlength=count * images).reshape(
            count, images
        )  # how often each came
        rows.append(times @ columns)
    return np.concatenate(rows)
