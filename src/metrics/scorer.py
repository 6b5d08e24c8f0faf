"""Score captions against references, for the whole set and for each image (step 8 of the data path).

Pure functions of text: no model, no files, no network.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from src.metrics.bootstrap import Score, difference
from src.metrics.bootstrap import intervals as bootstrap
from src.metrics.cider import read_frequencies
from src.metrics.clip_score import ClipScorer
from src.metrics.java_scorers import JavaScorerFailed, run, skip_reason
from src.metrics.ptb_tokenizer import ptb_tokenize
from src.metrics.text_scores import coco_scores, imageclef_rouge_1, original_scores, text_statistics
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
MAX_ORIGINAL = 10_000  # characters of a text


@dataclass(frozen=True)
class Scores:
    """Scores of one set of captions.

    corpus: scores by name. intervals: 95% bootstrap intervals over images, (low, high) by name, for the scores of
    `corpus` but distinct_fraction, METEOR and bleu_bigram. per_image: one row per image, in the order given.
    skipped: requested metrics that are missing, with the reason.
    """

    corpus: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: list[dict[str, float]]
    skipped: dict[str, str] = field(default_factory=dict)
    details: dict[str, Score] = field(default_factory=dict, compare=False)  # with the statistics of each image

    def flat(self, prefix: str = "") -> dict[str, float]:
        """Return corpus scores and interval bounds by name: `cider_d`, `cider_d_low`, `cider_d_high`."""
        scores = {f"{prefix}{name}": value for name, value in self.corpus.items()}
        for name, (low, high) in self.intervals.items():
            scores |= {f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
        return scores


class CaptionScorer:
    """Compute BLEU-1..4, ROUGE-L, CIDEr-D (0 to 10) and text statistics; METEOR, SPICE and `original` on request.

    tokenizer: "ptb", or "whitespace" for tokenized text. meteor, spice: true, false or "auto" (where they can
    run): looked for here, so that a run learns before training what will be missing. java_timeout: seconds.
    imageclef: also `imageclef_rouge_1`. cider_df: a file of document frequencies (`read_frequencies`). clip: a CLIP
    model for callers that have the images (`ClipScorer`).
    Raises UserError for a setting out of range, or METEOR or SPICE required but missing.
    """

    def __init__(
        self,
        tokenizer: str = "ptb",
        bootstrap_samples: int = 1000,
        seed: int = 0,
        meteor: bool | str = False,
        spice: bool | str = False,
        original: bool = False,
        imageclef: bool = False,
        cider_df: str | None = None,
        clip: str | None = None,
        java_timeout: float = 1800,
    ) -> None:
        if tokenizer not in ("ptb", "whitespace"):
            raise UserError(f"metrics.tokenizer={tokenizer!r}; expected ptb or whitespace; set it to ptb")
        if bootstrap_samples < 0:
            raise UserError(f"metrics.bootstrap_samples={bootstrap_samples}; expected 0 for none, or more")
        self.tokenize = ptb_tokenize if tokenizer == "ptb" else list[str]
        self.bootstrap_samples, self.seed = bootstrap_samples, seed
        self.original, self.imageclef, self.java_timeout = original, imageclef, java_timeout
        self.clip = ClipScorer(clip) if clip else None
        self.cider_df, self.frequencies = cider_df, read_frequencies(cider_df) if cider_df else None
        requested = {name: setting for name, setting in (("meteor", meteor), ("spice", spice)) if setting}
        reasons = {name: skip_reason(name, setting) for name, setting in requested.items()}
        self.java = [name for name, reason in reasons.items() if not reason]
        self.skipped = {name: reason for name, reason in reasons.items() if reason}
        for name, reason in self.skipped.items():
            log.info("%s is skipped: %s", name.upper(), reason)

    def score(
        self,
        image_ids: Sequence[str],
        candidates: Sequence[str],
        references: Sequence[Sequence[str]],
        intervals: bool = True,
        others: Mapping[str, Score] | None = None,
    ) -> Scores:
        """Score one candidate per image against its references; UserError on input that has no score.

        Without `intervals` this is the fast path for validation: METEOR and SPICE are left out too.
        others: scores of the same images that do not come from texts, such as the loss.
        """
        _check(image_ids, candidates, references)
        captions = self.tokenize(candidates)
        lines = iter(self.tokenize([text for texts in references for text in texts]))
        tokenized = [[next(lines) for _ in texts] for texts in references]
        scores, skipped = coco_scores(captions, tokenized, self.frequencies), dict(self.skipped)
        if self.imageclef:
            scores["imageclef_rouge_1"] = imageclef_rouge_1(candidates, references)
        if self.original and max(map(len, (*candidates, *chain(*references)))) > MAX_ORIGINAL:
            skipped["original"] = f"a text is longer than {MAX_ORIGINAL} characters"  # quadratic memory
        elif self.original:
            scores |= original_scores(candidates, references)
        for name in self.java if intervals else ():
            try:
                scores[name] = run(name, captions, tokenized, self.java_timeout)
            except JavaScorerFailed as error:
                skipped[name] = str(error)
                log.warning("%s is skipped: %s", name.upper(), error)
        scores |= text_statistics(captions) | dict(others or {})
        columns = {name: score.per_image.tolist() for name, score in scores.items() if score.per_image is not None}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        bounds = bootstrap(scores, self.bootstrap_samples, self.seed) if intervals else {}
        return Scores({name: score.corpus for name, score in scores.items()}, bounds, rows, skipped, scores)

    def gains(self, scores: Scores, base: Scores) -> Scores:
        """Return `<name>_gain`, scores less base on the same images, with paired intervals: each draw is of both.

        Of the scores that each image has; a gain of the loss is better below 0.
        """
        pairs = {name: (score, base.details[name]) for name, score in scores.details.items() if name in base.details}
        found = {f"{name}_gain": gain for name, pair in pairs.items() if (gain := difference(*pair))}
        bounds = bootstrap(found, self.bootstrap_samples, self.seed)
        return Scores({name: gain.corpus for name, gain in found.items()}, bounds, [])


def _check(image_ids: Sequence[str], candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not len(image_ids) == len(candidates) == len(references):
        counts = f"{len(image_ids)} images, {len(candidates)} captions and {len(references)} lists of references"
        raise UserError(f"{counts}; expected the same number of each")
    if not len(image_ids):
        raise UserError("no caption to score; expected at least one image with a caption and a reference")
    image_id, count = Counter(image_ids).most_common(1)[0]
    if count > 1:
        raise UserError(f"image {image_id!r} occurs twice; expected one caption per image; remove one")
    for image_id, candidate, texts in zip(image_ids, candidates, references, strict=True):
        if texts is None or isinstance(texts, str) or not len(texts):
            raise UserError(f"image {image_id!r} has no list of references; expected one at least; remove it")
        if not all(isinstance(text, str) for text in (candidate, *texts)):
            raise UserError(f"image {image_id!r}: a caption or reference is not a string; expected text")
