"""The original project's scores: bigram BLEU by nltk and ROUGE-1, 2, L as the `rouge` package computes them.

They pair each candidate with each of its references by itself, cut texts at blanks and are case-sensitive;
they do not compare with COCO's. The `rouge` package itself is not used: its ROUGE-L builds a dictionary with
an entry per pair of tokens, 15 GB for two texts of 20,000.
"""

from collections.abc import Sequence

import numpy as np

from src.metrics.bootstrap import Floats, MetricResult, SufficientStatistic
from src.metrics.coco import lcs_rows, ratio

ROUGE_KEYS = tuple(f"rouge_{kind}_{part}" for kind in ("1", "2", "l") for part in ("r", "p", "f"))
BIGRAM_WEIGHTS = (0, 1, 0, 0)


def original_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> MetricResult:
    """Compute `bleu_bigram` and `rouge_{1,2,l}_{r,p,f}` of raw texts.

    Corpus ROUGE is the mean over pairs, as `rouge.Rouge().get_scores(..., avg=True)`. A pair with an empty
    side scores 0. Per image, and with intervals, there is ROUGE only.
    """
    images = list(zip(candidates, references, strict=True))
    sizes = np.array([len(texts) for texts in references], np.float64)  # (N,) pairs of an image
    rouge = np.array([sum(_rouge(found, text) for text in texts) for found, texts in images])  # (N, 9)
    corpus = {"bleu_bigram": _bleu_bigram(candidates, references)}
    corpus |= dict(zip(ROUGE_KEYS, (rouge.sum(axis=0) / sizes.sum()).tolist(), strict=True))
    statistics = {
        key: SufficientStatistic(np.stack([rouge[:, column], sizes], axis=1), ratio)  # (N, 2)
        for column, key in enumerate(ROUGE_KEYS)
    }
    per_image = {key: rouge[:, column] / sizes for column, key in enumerate(ROUGE_KEYS)}
    return MetricResult(corpus, per_image, statistics)


def _bleu_bigram(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    pairs = [
        (c.split(), text.split()) for c, texts in zip(candidates, references, strict=True) for text in texts
    ]
    found, wanted = [pair[0] for pair in pairs], [[pair[1]] for pair in pairs]
    return float(corpus_bleu(wanted, found, BIGRAM_WEIGHTS, SmoothingFunction().method4))


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
