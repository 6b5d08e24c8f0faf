"""BLEU-1..4, ROUGE-L and CIDEr-D by the scorers of pycocoevalcap, silent, with what the bootstrap needs.

N images. Captions come tokenized, tokens joined by blanks.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from src.metrics.bootstrap import Floats, Parts, Statistic, mean

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
SMALL, TINY = 1e-9, 1e-15  # the reference scorer's; they keep divisions by nothing defined


def coco_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Parts:
    """BLEU-1..4, ROUGE-L and CIDEr-D.

    Per image, BLEU is the reference scorer's: unsmoothed but for 1e-15, so BLEU-4 of a caption without a
    common 4-gram is about 0. An empty candidate scores 0. CIDEr-D is on the scale of 0 to 10; its document
    frequencies are those of the whole set, in resamples too; it is 0 for a single image, whose n-grams are
    all in every document.
    """
    scores = _bleu(candidates, references)
    for name, values in (
        ("rouge_l", _rouge_l(candidates, references)),
        ("cider_d", _cider_d(candidates, references)),
    ):
        scores |= Parts({name: float(np.mean(values))}, {name: values}, {name: mean(values)})
    return scores


def _bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Parts:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    corpus, per_image = scorer.compute_score(option="closest", verbose=0)
    counts = np.array([_bleu_counts(comparison) for comparison in scorer.ctest], np.float64)  # (N, 10)
    return Parts(
        dict(zip(BLEU, map(float, corpus), strict=True)),
        {name: np.array(values) for name, values in zip(BLEU, per_image, strict=True)},
        {name: Statistic(counts, partial(bleu_of_counts, order=n)) for n, name in enumerate(BLEU, start=1)},
    )


def _bleu_counts(comparison: dict) -> list[int]:
    """Lengths of candidate and closest reference, n-grams of the candidate and those found, n = 1..4."""
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


def _rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Rouge()
    pairs = zip(candidates, references, strict=True)
    return np.array([scorer.calc_score([candidate], list(texts)) for candidate, texts in pairs], np.float64)


def _cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if not any(text.strip() for texts in references for text in texts):
        return np.zeros(len(candidates))  # the scorer has no defined answer without a single reference token
    scorer = CiderScorer(n=4, sigma=6.0)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    return np.asarray(scorer.compute_score()[1], np.float64)
