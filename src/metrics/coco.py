"""BLEU-1..4, ROUGE-L and CIDEr-D as pycocoevalcap gives them, and statistics of degenerate captions.

N images. Captions come tokenized, tokens joined by blanks.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from src.metrics.bootstrap import Floats, MetricResult, SufficientStatistic, mean

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
SMALL, TINY = 1e-9, 1e-15  # pycocoevalcap's constants against division by zero
ROUGE_BETA = 1.2
REPEATED_NGRAM = 3


def coco_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> MetricResult:
    """Compute BLEU-1..4, ROUGE-L and CIDEr-D.

    Per image, BLEU is the reference scorer's: unsmoothed but for 1e-15, so BLEU-4 of a caption without a
    common 4-gram is about 0. An empty candidate scores 0. CIDEr-D is on the scale of 0 to 10; its document
    frequencies are those of the whole set, in resamples too; it is 0 for a single image, whose n-grams are
    all in every document.
    """
    scores = _bleu(candidates, references)
    rouge = [rouge_l(candidate, texts) for candidate, texts in zip(candidates, references, strict=True)]
    for name, values in (("rouge_l", np.array(rouge)), ("cider_d", _cider_d(candidates, references))):
        scores |= MetricResult({name: float(np.mean(values))}, {name: values}, {name: mean(values)})
    return scores


def _bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> MetricResult:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    corpus, per_image = scorer.compute_score(option="closest", verbose=0)
    counts = np.array([_bleu_counts(comparison) for comparison in scorer.ctest], np.float64)  # (N, 10)
    return MetricResult(
        dict(zip(BLEU, map(float, corpus), strict=True)),
        {name: np.array(values) for name, values in zip(BLEU, per_image, strict=True)},
        {
            name: SufficientStatistic(counts, partial(bleu_of_counts, order=n))
            for n, name in enumerate(BLEU, 1)
        },
    )


def _bleu_counts(comparison: dict) -> list[int]:
    """Lengths of candidate and closest reference, n-grams of the candidate and matched ones, n = 1..4."""
    length = comparison["testlen"]
    closest = min((abs(other - length), other) for other in comparison["reflen"])[1]
    return [length, closest, *comparison["guess"], *comparison["correct"]]


def bleu_of_counts(counts: Floats, order: int) -> Floats:
    """(R, 10) sums of `_bleu_counts` -> (R,) corpus BLEU of that order, by the same formula."""
    lengths, closest = counts[:, 0], counts[:, 1]
    precisions = (counts[:, 6 : 6 + order] + TINY) / (counts[:, 2 : 2 + order] + SMALL)
    ratio = (lengths + TINY) / (closest + SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return precisions.prod(axis=1) ** (1 / order) * brevity


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """Compute ROUGE-L (F with beta 1.2) of best precision and best recall over the references.

    Tokens are cut at each single blank, as in pycocoevalcap: two blanks hold an empty token between them.
    """
    tokens = candidate.split(" ")
    lengths = [(lcs_length(other.split(" "), tokens), len(other.split(" "))) for other in references]
    precision = max(common / len(tokens) for common, _ in lengths)
    recall = max(common / length for common, length in lengths)
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def lcs_rows(x: Sequence[str], y: Sequence[str]) -> Iterator[int]:
    """Yield the rows of the table of longest common subsequences as bits, len(x) + 1 integers of len(y) bits.

    Bit j of row i is 0 where the table grows from column j to j + 1; so the table's entry [i, j] is the number
    of zeros among the low j bits (Hyyro, 2004).
    """
    matches: dict[str, int] = {}
    for index, token in enumerate(y):
        matches[token] = matches.get(token, 0) | 1 << index
    row = full = (1 << len(y)) - 1
    yield row
    for token in x:
        common = row & matches.get(token, 0)
        row = (row + common | row - common) & full
        yield row


def lcs_length(x: Sequence[str], y: Sequence[str]) -> int:
    """Return the length of the longest common subsequence; memory is linear in the lengths."""
    row = 0
    for row in lcs_rows(x, y):  # noqa: B007 - the last one
        pass
    return len(y) - row.bit_count()


def _cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if not any(text.strip() for texts in references for text in texts):
        return np.zeros(len(candidates))  # undefined without a single reference token
    scorer = CiderScorer(n=4, sigma=6.0)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    return np.asarray(scorer.compute_score()[1], np.float64)


def text_statistics(candidates: Sequence[str]) -> MetricResult:
    """Compute distinct_fraction, mean_length (tokens) and repeated_ngram_fraction of tokenized candidates.

    They show a degenerate captioner, which scores can hide: one caption for all images, or loops.
    distinct_fraction: different captions among all; 1 when no two images share one. It has no interval: a
    resample repeats images by design. repeated_ngram_fraction: 3-grams that occurred in the same caption
    before, among all 3-grams; 0 where there is none.
    """
    tokens = [candidate.split() for candidate in candidates]
    lengths = np.array([len(caption) for caption in tokens], np.float64)
    ngrams = [list(zip(*(caption[i:] for i in range(REPEATED_NGRAM)), strict=False)) for caption in tokens]
    repeats = np.array([(len(all_) - len(set(all_)), len(all_)) for all_ in ngrams], np.float64)  # (N, 2)
    repeated = SufficientStatistic(repeats, ratio)
    corpus = {
        "distinct_fraction": len(set(candidates)) / len(candidates),
        "mean_length": float(lengths.mean()),
        "repeated_ngram_fraction": float(ratio(repeats.sum(axis=0, keepdims=True))[0]),
    }
    return MetricResult(corpus, {}, {"mean_length": mean(lengths), "repeated_ngram_fraction": repeated})


def ratio(sums: Floats) -> Floats:
    """(R, 2) numerators and denominators -> (R,), 0 where the denominator is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
