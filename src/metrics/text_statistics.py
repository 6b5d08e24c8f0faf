"""Signs of a collapsed captioner, which scores can hide: the same caption for all, loops, length."""

from collections.abc import Sequence

import numpy as np

from src.metrics.bootstrap import Floats, Parts, Statistic, mean

NGRAM = 3


def text_statistics(candidates: Sequence[str]) -> Parts:
    """distinct_share, mean_length (tokens) and repeated_ngram_share of tokenized candidates.

    distinct_share: different captions among all; 1 when no two images share one. It has no interval: a
    resample repeats images by design. repeated_ngram_share: 3-grams that stood in the same caption before,
    among all 3-grams; 0 where there is none.
    """
    words = [candidate.split() for candidate in candidates]
    lengths = np.array([len(tokens) for tokens in words], np.float64)
    ngrams = [list(zip(*(tokens[i:] for i in range(NGRAM)), strict=False)) for tokens in words]
    repeats = np.array([(len(found) - len(set(found)), len(found)) for found in ngrams], np.float64)  # (N, 2)
    corpus = {
        "distinct_share": len(set(candidates)) / len(candidates),
        "mean_length": float(lengths.mean()),
        "repeated_ngram_share": float(_share(repeats.sum(axis=0, keepdims=True))[0]),
    }
    return Parts(
        corpus, {}, {"mean_length": mean(lengths), "repeated_ngram_share": Statistic(repeats, _share)}
    )


def _share(sums: Floats) -> Floats:
    """(R, 2) parts and wholes -> (R,) shares, 0 where the whole is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
