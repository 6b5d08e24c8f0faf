"""The figures that the original project published: a bigram BLEU of nltk and ROUGE of the `rouge` package.

They pair each candidate with each of its references by itself, cut texts at blanks, and know capitals from
small letters; they do not compare with COCO's.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from src.metrics.bootstrap import Floats, Parts, Statistic

ROUGE_KEYS = tuple(f"rouge_{kind}_{part}" for kind in ("1", "2", "l") for part in ("r", "p", "f"))
BIGRAMS_ALONE = (0, 1, 0, 0)


def original_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Parts:
    """`bleu_bigram` and `rouge_{1,2,l}_{r,p,f}` of raw texts.

    Corpus ROUGE is the mean over pairs, as `rouge.Rouge().get_scores(..., avg=True)`. A pair with an empty
    side scores 0. Per image, there is ROUGE only.
    """
    sizes = np.array([len(texts) for texts in references], np.float64)  # (N,) pairs of an image
    rouge = np.array(
        [_rouge(c, texts) for c, texts in zip(candidates, references, strict=True)]
    )  # (N, 9) sums
    corpus = {"bleu_bigram": _bleu_bigram(candidates, references)}
    corpus |= dict(zip(ROUGE_KEYS, (rouge.sum(axis=0) / sizes.sum()).tolist(), strict=True))
    counts = np.array([_bigram_counts(c, texts) for c, texts in zip(candidates, references, strict=True)])
    statistics = {"bleu_bigram": Statistic(counts, _bleu_of_counts)}
    for column, key in enumerate(ROUGE_KEYS):
        pairs = np.stack([rouge[:, column], sizes], axis=1)  # (N, 2)
        statistics[key] = Statistic(pairs, lambda sums: sums[:, 0] / sums[:, 1])
    return Parts(corpus, {key: rouge[:, column] / sizes for column, key in enumerate(ROUGE_KEYS)}, statistics)


def _bleu_bigram(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    found, wanted = [], []
    for candidate, texts in zip(candidates, references, strict=True):
        found += [candidate.split()] * len(texts)
        wanted += [[text.split()] for text in texts]
    smoothing = SmoothingFunction().method4
    return float(corpus_bleu(wanted, found, weights=BIGRAMS_ALONE, smoothing_function=smoothing))


def _bigram_counts(candidate: str, references: Sequence[str]) -> list[float]:
    """Over an image's pairs: words found, bigrams found, bigrams, candidate's and references' lengths."""
    from nltk.translate.bleu_score import modified_precision

    words = candidate.split()
    unigrams = [modified_precision([text.split()], words, 1).numerator for text in references]
    bigrams = [modified_precision([text.split()], words, 2) for text in references]
    return [
        float(sum(unigrams)),
        float(sum(found.numerator for found in bigrams)),
        float(sum(found.denominator for found in bigrams)),
        float(len(words) * len(references)),
        float(sum(len(text.split()) for text in references)),
    ]


def _bleu_of_counts(sums: Floats) -> Floats:
    """(R, 5) sums of `_bigram_counts` -> (R,) what `corpus_bleu` gives for them."""
    return np.array([_bleu_of_sums(*row) for row in sums.tolist()])


def _bleu_of_sums(words: float, found: float, bigrams: float, length: float, wanted_length: float) -> float:
    if round(words) == 0:
        return 0.0
    if round(found) == 0:  # Chen and Cherry's fourth smoothing
        found = math.log(length) / 10 if length > 1 else bigrams
    brevity = 1.0 if length > wanted_length else math.exp(1 - wanted_length / length)
    return brevity * found / bigrams


def _rouge(candidate: str, references: Sequence[str]) -> list[float]:
    """Sums over an image's pairs, in the order of ROUGE_KEYS."""
    from rouge import Rouge

    scorer, sums = Rouge(), np.zeros(len(ROUGE_KEYS))
    for reference in references:
        if not any(candidate.split(".")) or not any(reference.split(".")):
            continue  # the package refuses an empty side
        with _deep_recursion(len(candidate.split()) + len(reference.split())):
            scores = scorer.get_scores(candidate, reference)[0]
        sums += [scores[f"rouge-{kind}"][part] for kind in ("1", "2", "l") for part in ("r", "p", "f")]
    return sums.tolist()


@contextmanager
def _deep_recursion(words: int) -> Iterator[None]:
    """The package walks a common subsequence by recursion, a call per word; reports pass Python's limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 2 * words + 1000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
