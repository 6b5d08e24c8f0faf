"""Scores of texts: COCO's BLEU-1..4, ROUGE-L and CIDEr-D, signs of degenerate captions, the original project's.

N images. COCO's take tokenized captions, tokens joined by blanks.
"""

import re
import string
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from src.metrics.bootstrap import Floats, Score, mean, ratio
from src.metrics.cider import CiderD, DocumentFrequencies

SMALL, TINY = 1e-9, 1e-15  # pycocoevalcap's constants against division by zero
ROUGE_BETA = 1.2
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
ORIGINAL_ROUGE = tuple(f"rouge_{kind}_{score}" for kind in ("1", "2", "l") for score in ("r", "p", "f"))


def coco_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], frequencies: DocumentFrequencies | None = None
) -> dict[str, Score]:
    """Compute BLEU-1..4, ROUGE-L and CIDEr-D as pycocoevalcap does. An empty candidate scores 0.

    Per image, BLEU is unsmoothed but for 1e-15: BLEU-4 of a caption without a common 4-gram is about 0. CIDEr-D
    is on the scale of 0 to 10; its document frequencies are those given, else those of the whole set, in resamples
    too: then it is 0 for a single image, whose n-grams are in every document.
    """
    cider, pairs = CiderD(references, frequencies), list(zip(candidates, references, strict=True))
    rouge_l_scores = np.array([rouge_l(candidate, texts) for candidate, texts in pairs])
    cider_d_scores = np.array([cider.score([candidate], texts)[0] for candidate, texts in pairs])
    return _bleu(candidates, references) | {"rouge_l": mean(rouge_l_scores), "cider_d": mean(cider_d_scores)}


def _bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    corpus, per_image = scorer.compute_score(option="closest", verbose=0)
    counts = []  # (N, 10): lengths of candidate and closest reference, n-grams of the candidate, matched ones
    for image in scorer.ctest:
        closest = min((abs(length - image["testlen"]), length) for length in image["reflen"])[1]
        counts.append([image["testlen"], closest, *image["guess"], *image["correct"]])
    sums = np.array(counts, np.float64)
    return {
        f"bleu_{n}": Score(float(score), np.array(values), sums, partial(_bleu_of_counts, order=n))
        for n, score, values in zip((1, 2, 3, 4), corpus, per_image, strict=True)
    }


def _bleu_of_counts(counts: Floats, order: int) -> Floats:
    """(R, 10) sums of counts -> (R,) corpus BLEU of that order, by pycocoevalcap's formula."""
    precisions = (counts[:, 6 : 6 + order] + TINY) / (counts[:, 2 : 2 + order] + SMALL)
    lengths = (counts[:, 0] + TINY) / (counts[:, 1] + SMALL)
    return precisions.prod(axis=1) ** (1 / order) * np.exp(np.minimum(0.0, 1 - 1 / lengths))


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """Compute ROUGE-L (F with beta 1.2) of best precision and best recall over the references, in linear memory.

    Tokens are cut at each single blank, as in pycocoevalcap: two blanks hold an empty token between them.
    """
    tokens = candidate.split(" ")
    others = [text.split(" ") for text in references]
    common = [_lcs_length(other, tokens) for other in others]
    precision = max(common) / len(tokens)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _lcs_length(x: Sequence[str], y: Sequence[str]) -> int:
    """Return the length of the longest common subsequence by bits (Hyyro, 2004)."""
    matches: dict[str, int] = {}
    for index, token in enumerate(y):
        matches[token] = matches.get(token, 0) | 1 << index
    row = full = (1 << len(y)) - 1  # bit j is 0 where the table's row grows from column j to j + 1
    for token in x:
        common = row & matches.get(token, 0)
        row = (row + common | row - common) & full
    return len(y) - row.bit_count()


def text_statistics(candidates: Sequence[str]) -> dict[str, Score]:
    """Compute what shows a degenerate captioner, of tokenized candidates.

    distinct_fraction: different captions among all, without an interval: a resample repeats images by design.
    mean_length: tokens. repeated_ngram_fraction: 3-grams that occurred before in the same caption, among all.
    """
    tokens = [candidate.split() for candidate in candidates]
    trigrams = [list(zip(caption, caption[1:], caption[2:], strict=False)) for caption in tokens]
    repeats = np.array([(len(found) - len(set(found)), len(found)) for found in trigrams], np.float64)  # (N, 2)
    repeated = float(ratio(repeats.sum(axis=0, keepdims=True))[0])
    return {
        "distinct_fraction": Score(len(set(candidates)) / len(candidates)),
        "mean_length": mean(np.array([len(caption) for caption in tokens], np.float64))._replace(per_image=None),
        "repeated_ngram_fraction": Score(repeated, None, repeats),
    }


def imageclef_rouge_1(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """Compute ROUGE-1 F of raw texts as ImageCLEFmedical Caption does; with several references, the best one's.

    Texts are in lower case, each number becomes the word "number", and punctuation is removed.
    """

    def clean(text: str) -> Counter[str]:
        return Counter(re.sub(r"\d+", "number", text.lower()).translate(NO_PUNCTUATION).split())

    def f_score(one: Counter[str], other: Counter[str]) -> float:
        return 2 * (one & other).total() / ((one.total() + other.total()) or 1)

    pairs = zip(map(clean, candidates), references, strict=True)
    return mean(np.array([max(f_score(words, clean(text)) for text in texts) for words, texts in pairs]))


def original_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    """Compute `bleu_bigram` and `rouge_{1,2,l}_{r,p,f}` of raw texts as the original project does.

    Each candidate is paired with each of its references by itself; tokens are cut at blanks, case-sensitive.
    bleu_bigram, without an interval, is nltk's `corpus_bleu` with weights (0, 1, 0, 0) and smoothing method 4.
    ROUGE is the mean over pairs of what the package `rouge` gives; a pair with an empty text scores 0.
    """
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    images = list(zip(candidates, references, strict=True))
    pairs = [(found.split(), [text.split()]) for found, texts in images for text in texts]
    found, wanted = zip(*pairs, strict=True)
    scores = {"bleu_bigram": Score(float(corpus_bleu(wanted, found, (0, 1, 0, 0), SmoothingFunction().method4)))}
    sizes = np.array([len(texts) for texts in references], np.float64)  # (N,) pairs of an image
    rouge = np.array([sum(_original_rouge(found, text) for text in texts) for found, texts in images])  # (N, 9)
    for name, total, values in zip(ORIGINAL_ROUGE, rouge.sum(axis=0) / sizes.sum(), rouge.T, strict=True):
        scores[name] = Score(float(total), values / sizes, np.stack([values, sizes], axis=1))
    return scores


def _original_rouge(candidate: str, reference: str) -> Floats:
    """Return recall, precision and F of ROUGE-1, 2 and L of one pair, in the order of ORIGINAL_ROUGE: (9,)."""
    from rouge import Rouge

    if not candidate.strip(".") or not reference.strip("."):
        return np.zeros(len(ORIGINAL_ROUGE))
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(limit + len(candidate) + len(reference))  # the package recurses by tokens
        scores = Rouge().get_scores(candidate, reference)[0]
    finally:
        sys.setrecursionlimit(limit)
    return np.array([scores[f"rouge-{kind}"][score] for kind in ("1", "2", "l") for score in ("r", "p", "f")])
