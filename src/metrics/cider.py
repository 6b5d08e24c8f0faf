"""CIDEr-D (Vedantam et al., 2015), as pycocoevalcap computes it, with document frequencies of any set of references.

Captions are tokenized, tokens joined by blanks, but those that the reward of self-critical training is given.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.datamodule.caption_table import CaptionedImage
from src.metrics.ptb_tokenizer import ptb_tokenize
from src.utils.errors import UserError

EOS = " <eos>"  # of the reward: a word of its own in references and in captions that ended
ORDER, SIGMA = 4, 6.0  # n-grams up to ORDER; spread of the length penalty, in tokens

Ngram = tuple[str, ...]


class Vector(NamedTuple):
    """A caption's tf-idf weights by n-gram, the norm of those of each n, and its number of bigrams."""

    weights: dict[Ngram, float]
    norms: list[float]
    length: int


class DocumentFrequencies(NamedTuple):
    """In how many of `num_images` an n-gram occurs; one that is in none or in one may be missing."""

    num_images: int
    counts: dict[Ngram, int]


def count_documents(references: Sequence[Sequence[str]]) -> DocumentFrequencies:
    """Count, per n-gram, the images that have it in any of their captions."""
    images = ({ngram for text in texts for ngram in _ngrams(text)} for texts in references)
    return DocumentFrequencies(len(references), Counter(ngram for image in images for ngram in image))


def frequencies_as_json(frequencies: DocumentFrequencies) -> dict[str, Any]:
    """Return {"ref_len": images, "document_frequency": {"a man": images}}, as the field's pickles name it."""
    counts = {" ".join(ngram): count for ngram, count in frequencies.counts.items() if count > 1}
    return {"ref_len": frequencies.num_images, "document_frequency": counts}


def read_frequencies(path: str | Path) -> DocumentFrequencies:
    """Read the JSON of `frequencies_as_json`. UserError for another file: a pickle could run any code."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        counts = {tuple(ngram.split(" ")): int(count) for ngram, count in found["document_frequency"].items()}
        return DocumentFrequencies(int(found["ref_len"]), counts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"metrics.cider_df={str(path)!r} cannot be read ({error}); expected JSON with ref_len and "
            "document_frequency (no pickle); write it by python -m src.data data_dir=FOLDER write_df=FILE.json"
        ) from error


class CiderD:
    """Score captions with the document frequencies of `references` (per image, its captions), or those given.

    A document is an image: an n-gram counts once for all captions of an image.
    """

    def __init__(self, references: Sequence[Sequence[str]], frequencies: DocumentFrequencies | None = None) -> None:
        num_images, counts = frequencies or count_documents(references)
        self.unseen_idf = math.log(max(1, num_images))
        self.idf = {ngram: self.unseen_idf - math.log(count) for ngram, count in counts.items() if count > 1}

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the scores, 0 to 10, of several candidates of one image against its references."""
        vectors = list(map(self._vector, references))
        found = [[_similarities(one, other) for other in vectors] for one in map(self._vector, candidates)]  # (K,R,n)
        return (np.array(found).sum(1).mean(1) / len(vectors) * 10.0).tolist()

    def _vector(self, caption: str) -> Vector:
        weights, squares = dict[Ngram, float](), [0.0] * ORDER
        for ngram, count in Counter(_ngrams(caption)).items():
            weights[ngram] = weight = count * self.idf.get(ngram, self.unseen_idf)
            squares[len(ngram) - 1] += weight * weight
        return Vector(weights, [math.sqrt(square) for square in squares], max(0, len(caption.split()) - 1))


class CiderReward:
    """CIDEr-D, 0 to 10, with the document frequencies of the images given and the end of a caption as a word.

    Without that word captions that stop after "with a" score well, since their n-grams are frequent: Hu et al., 2023.
    """

    def __init__(self, images: Sequence[CaptionedImage]) -> None:
        lines = iter(ptb_tokenize([text for image in images for text in image.captions]))
        self.references = {image.image_id: [next(lines) + EOS for _ in image.captions] for image in images}
        self.cider = CiderD(list(self.references.values()))

    def __call__(self, image_ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> np.ndarray:
        """Score the K captions of each of B images, one image after another (B*K): (B,K).

        ended: whether a caption ended with EOS, and was not cut off.
        """
        texts = [text + EOS * end for text, end in zip(ptb_tokenize(captions), ended, strict=True)]
        per_image = np.reshape(texts, (len(image_ids), -1)).tolist()
        pairs = zip(per_image, (self.references[name] for name in image_ids), strict=True)
        return np.array([self.cider.score(*pair) for pair in pairs])

    @staticmethod
    def signature(num_samples: int) -> str:
        """Return what SacreEOS 1.0.0 (Hu et al., 2023) would name this reward and its baseline."""
        return f"STANDARD_wInit+Cider-D[n{ORDER},s{SIGMA}]+average[nspi{num_samples}]+1.0.0"


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
