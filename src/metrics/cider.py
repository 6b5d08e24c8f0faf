"""CIDEr-D (Vedantam et al., 2015), as pycocoevalcap computes it, with document frequencies of any set of references.

Captions are tokenized, tokens joined by blanks.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ORDER, SIGMA = 4, 6.0  # n-grams up to ORDER; spread of the length penalty, in tokens

Ngram = tuple[str, ...]


class Vector(NamedTuple):
    """A caption's tf-idf weights by n-gram, the norm of those of each n, and its number of bigrams."""

    weights: dict[Ngram, float]
    norms: list[float]
    length: int


class CiderD:
    """Score captions with the document frequencies of `references`: per image, its captions.

    A document is an image: an n-gram counts once for all captions of an image.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        images = ({ngram for text in texts for ngram in _ngrams(text)} for texts in references)
        frequency = Counter(ngram for image in images for ngram in image)
        self.unseen_idf = math.log(max(1, len(references)))
        self.idf = {ngram: self.unseen_idf - math.log(count) for ngram, count in frequency.items() if count > 1}

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the scores, 0 to 10, of several candidates of one image against its references."""
        vectors = [self._vector(text) for text in references]
        return [self._mean_similarity(self._vector(text), vectors) for text in candidates]

    def _vector(self, caption: str) -> Vector:
        weights, squares = dict[Ngram, float](), [0.0] * ORDER
        for ngram, count in Counter(_ngrams(caption)).items():
            weights[ngram] = weight = count * self.idf.get(ngram, self.unseen_idf)
            squares[len(ngram) - 1] += weight * weight
        return Vector(weights, [math.sqrt(square) for square in squares], max(0, len(caption.split()) - 1))

    def _mean_similarity(self, candidate: Vector, references: Sequence[Vector]) -> float:
        sums = np.zeros(ORDER)  # in pycocoevalcap's order of additions, so that scores are equal to the last bit
        for reference in references:
            sums += _similarities(candidate, reference)
        return float(np.mean(sums)) / len(references) * 10.0


def _ngrams(caption: str) -> list[Ngram]:
    words = caption.split()
    return [tuple(words[at : at + n]) for n in range(1, ORDER + 1) for at in range(len(words) - n + 1)]


def _similarities(candidate: Vector, reference: Vector) -> list[float]:
    """For each n the cosine, weights clipped at the reference's, times a Gaussian of the difference in length."""
    products = [0.0] * ORDER
    for ngram, weight in candidate.weights.items():
        if ngram in reference.weights:
            other = reference.weights[ngram]
            products[len(ngram) - 1] += min(weight, other) * other
    penalty = math.e ** (-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))
    norms = (one * other for one, other in zip(candidate.norms, reference.norms, strict=True))
    return [(dot / norm if norm else dot) * penalty for dot, norm in zip(products, norms, strict=True)]
