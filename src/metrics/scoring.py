"""Step 8 of the data path: captions against references, for the whole set and for each image.

The scorers are pycocoevalcap's. CIDEr-D is on its scale of 0 to 10 and depends on the set.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.utils.errors import UserError

WORDS = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*", re.UNICODE)


@dataclass(frozen=True)
class Scores:
    """corpus: scores by name. intervals: 95% bootstrap intervals over images. per_image: one row per image."""

    corpus: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: list[dict[str, float]]


def score(
    image_ids: Sequence[str],
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    intervals: bool = True,
    samples: int = 1000,
) -> Scores:
    """BLEU-1..4, ROUGE-L and CIDEr-D of one candidate per image against its references.

    Raises:
        UserError: the lists differ in length, are empty, or an image has no reference.
    """
    if not len(image_ids) == len(candidates) == len(references) or not candidates:
        raise UserError(
            f"{len(image_ids)} images, {len(candidates)} captions, {len(references)} lists of references; expected "
            "the same number of each, and at least one"
        )
    if not all(references):
        raise UserError("an image has no reference; expected at least one for each; leave the image out")
    found = {i: [" ".join(WORDS.findall(text.lower()))] for i, text in enumerate(candidates)}
    wanted = {i: [" ".join(WORDS.findall(t.lower())) for t in texts] for i, texts in enumerate(references)}
    corpus, rows = _scores(found, wanted)
    return Scores(corpus, _intervals(found, wanted, rows, samples) if intervals else {}, rows)


def _scores(found: dict, wanted: dict) -> tuple[dict[str, float], list[dict[str, float]]]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    with contextlib.redirect_stdout(io.StringIO()):
        bleu, bleus = Bleu(4).compute_score(wanted, found, verbose=0)
        rouge, rouges = Rouge().compute_score(wanted, found)
        cider, ciders = Cider().compute_score(wanted, found)
    corpus = {f"bleu_{n + 1}": float(value) for n, value in enumerate(bleu)}
    corpus |= {"rouge_l": float(rouge), "cider_d": float(cider)}
    rows = [
        {
            **{f"bleu_{n + 1}": float(bleus[n][i]) for n in range(4)},
            "rouge_l": float(rouges[i]),
            "cider_d": float(ciders[i]),
        }
        for i in range(len(found))
    ]
    return corpus, rows


def _intervals(
    found: dict, wanted: dict, rows: list[dict[str, float]], samples: int
) -> dict[str, tuple[float, float]]:
    """Percentiles 2.5 and 97.5 of the mean over images drawn with replacement (ROUGE-L and CIDEr-D are means)."""
    picks = np.random.default_rng(0).integers(len(rows), size=(samples, len(rows)))
    intervals = {}
    for name in ("rouge_l", "cider_d"):
        means = np.array([row[name] for row in rows])[picks].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        intervals[name] = (float(low), float(high))
    return intervals
