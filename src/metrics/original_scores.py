"""The original project's scores: bigram BLEU by nltk and ROUGE-1, 2, L as the `rouge` package computes them.

They pair each candidate with each of its references by itself, cut texts at blanks and are case-sensitive;
they do not compare with COCO's. The `rouge` package itself is not used: its ROUGE-L builds a dictionary with
an entry per pair of tokens, 15 GB for two texts of 20,000.
"""

import math
from collections.abc import Sequence

import numpy as np

from src.metrics.bootstrap import Floats, MetricResult, SufficientStatistic
from src.metrics.coco import lcs_rows

ROUGE_KEYS = tuple(f"rouge_{kind}_{part}" for kind in ("1", "2", "l") for part in ("r", "p", "f"))
BIGRAM_WEIGHTS = (0, 1, 0, 0)


def original_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> MetricResult:
    """Compute `bleu_bigram` and `rouge_{1,2,l}_{r,p,f}` of raw texts.

    Corpus ROUGE is the mean over pairs, as `rouge.Rouge().get_scores(..., avg=True)`. A pair with an empty
    side scores 0. Per image, there is ROUGE only.
    """
    images = list(zip(candidates, references, strict=True))
    sizes = np.array([len(texts) for texts in references], np.float64)  # (N,) pairs of an image
    rouge = np.array(
        [sum(_rouge(candidate, text) for text in texts) for candidate, texts in images]
    )  # (N, 9)
    corpus = {"bleu_bigram": _bleu_bigram(candidates, references)}
    corpus |= dict(zip(ROUGE_KEYS, (rouge.sum(axis=0) / sizes.sum()).tolist(), strict=True))
    counts = np.array([_bigram_counts(candidate, texts) for candidate, texts in images])
    statistics = {"bleu_bigram": SufficientStatistic(counts, _bleu_of_counts)}
    for column, key in enumerate(ROUGE_KEYS):
        pairs = np.stack([rouge[:, column], sizes], axis=1)  # (N, 2)
        statistics[key] = SufficientStatistic(pairs, lambda sums: sums[:, 0] / sums[:, 1])
    per_image = {key: rouge[:, column] / sizes for column, key in enumerate(ROUGE_KEYS)}
    return MetricResult(corpus, per_image, statistics)


def _bleu_bigram(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    pairs = [
        (c.split(), text.split()) for c, texts in zip(candidates, references, strict=True) for text in texts
    ]
    return float(
        corpus_bleu(
            [[reference] for _, reference in pairs],
            [candidate for candidate, _ in pairs],
            weights=BIGRAM_WEIGHTS,
            smoothing_function=SmoothingFunction().method4,
        )
    )


def _bigram_counts(candidate: str, references: Sequence[str]) -> list[float]:
    """Over an image's pairs: matched tokens, matched bigrams, bigrams, candidate's and references' lengths."""
    from nltk.translate.bleu_score import modified_precision

    tokens = candidate.split()
    unigrams = [modified_precision([text.split()], tokens, 1).numerator for text in references]
    bigrams = [modified_precision([text.split()], tokens, 2) for text in references]
    return [
        float(sum(unigrams)),
        float(sum(match.numerator for match in bigrams)),
        float(sum(match.denominator for match in bigrams)),
        float(len(tokens) * len(references)),
        float(sum(len(text.split()) for text in references)),
    ]


def _bleu_of_counts(sums: Floats) -> Floats:
    """(R, 5) sums of `_bigram_counts` -> (R,) what `corpus_bleu` gives for them."""
    return np.array([_bleu_of_sums(*row) for row in sums.tolist()])


def _bleu_of_sums(unigrams: float, matched: float, bigrams: float, length: float, other: float) -> float:
    if round(unigrams) == 0:
        return 0.0
    if round(matched) == 0:  # Chen and Cherry's fourth smoothing
        matched = math.log(length) / 10 if length > 1 else bigrams
    brevity = 1.0 if length > other else math.exp(1 - other / length)
    return brevity * matched / bigrams


def _rouge(candidate: str, reference: str) -> Floats:
    """Recall, precision and F of ROUGE-1, 2 and L of one pair, in the order of ROUGE_KEYS: (9,)."""
    found, wanted = _sentences(candidate), _sentences(reference)
    if not found or not wanted:
        return np.zeros(len(ROUGE_KEYS))
    scores: list[float] = []
    for n in (1, 2):
        grams, expected = _ngrams(found, n), _ngrams(wanted, n)
        scores += _recall_precision_f(len(grams & expected), len(expected), len(grams))
    union: set[str] = set()
    for sentence in wanted:
        for other in found:
            union |= _common_tokens(sentence, other)
    return np.array(scores + _recall_precision_f(len(union), len(_ngrams(wanted, 1)), len(_ngrams(found, 1))))


def _sentences(text: str) -> list[list[str]]:
    """Tokens of each sentence; one of blanks alone holds an empty token, as in the `rouge` package."""
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _ngrams(sentences: Sequence[Sequence[str]], n: int) -> set[tuple[str, ...]]:
    tokens = [token for sentence in sentences for token in sentence]
    return set(zip(*(tokens[i:] for i in range(n)), strict=False))


def _recall_precision_f(common: int, expected: int, found: int) -> list[float]:
    recall, precision = common / expected if expected else 0.0, common / found if found else 0.0
    return [recall, precision, 2.0 * (precision * recall / (precision + recall + 1e-8))]


def _common_tokens(x: Sequence[str], y: Sequence[str]) -> set[str]:
    """Return the tokens of the longest common subsequence that the `rouge` package finds, len(x) * len(y) bits."""
    rows, i, j, tokens = list(lcs_rows(x, y)), len(x), len(y), set()
    while i and j:
        if x[i - 1] == y[j - 1]:
            tokens.add(x[i - 1])
            i, j = i - 1, j - 1
        elif _entry(rows[i - 1], j) > _entry(rows[i], j - 1):
            i -= 1
        else:
            j -= 1
    return tokens


def _entry(row: int, column: int) -> int:
    """Return the entry of the table in that column: zeros among the low bits of the row."""
    return column - (row & (1 << column) - 1).bit_count()
