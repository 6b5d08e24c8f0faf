"""Step 8 of the data path: captions against references, for the whole set and for each image.

Pure functions of text: no model, no files, no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from src.metrics.bootstrap import intervals as bootstrap
from src.metrics.coco import coco_scores
from src.metrics.java_scorers import JavaScorerFailed, run, wanted
from src.metrics.original_scores import original_scores
from src.metrics.ptb.tokenizer import PTBTokenizer, WhitespaceTokenizer
from src.metrics.text_statistics import text_statistics
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

TOKENIZERS: dict[str, type[PTBTokenizer | WhitespaceTokenizer]] = {
    "ptb": PTBTokenizer,
    "whitespace": WhitespaceTokenizer,
}
JAVA_SCORERS = ("meteor", "spice")
FEW_IMAGES = 100
_warned: set[str] = set()


@dataclass(frozen=True)
class Scores:
    """What one set of captions is worth.

    corpus: scores by name. intervals: 95% bootstrap intervals over images, (low, high) by name, for every
    score of `corpus` but `distinct_share`. per_image: one row of scores per image, in the order given.
    skipped: why a metric that was asked for is not there.
    """

    corpus: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: list[dict[str, float]]
    skipped: dict[str, str] = field(default_factory=dict)


class CaptionScorer:
    """The metrics of a run, as `configs/metrics` sets them.

    BLEU-1..4, ROUGE-L, CIDEr-D (0 to 10), distinct_share, mean_length, repeated_ngram_share; METEOR and SPICE
    where they can run; the original project's figures on request. METEOR and SPICE are looked for when the
    scorer is made, so that a run learns before training what it will not get.
    """

    def __init__(
        self,
        tokenizer: str = "ptb",
        bootstrap_samples: int = 1000,
        seed: int = 0,
        meteor: bool | str = False,
        spice: bool | str = False,
        original: bool = False,
        java_timeout: float = 1800,
    ) -> None:
        """tokenizer: "ptb", or "whitespace" for text that is tokenized already. java_timeout: seconds.

        Raises:
            UserError: an unknown tokenizer, a negative number of samples, METEOR or SPICE demanded in vain.
        """
        if tokenizer not in TOKENIZERS:
            raise UserError(f"metrics.tokenizer={tokenizer!r}; expected ptb or whitespace; set it to ptb")
        if bootstrap_samples < 0:
            raise UserError(
                f"metrics.bootstrap_samples={bootstrap_samples}; expected 0 for none, or more; set it to 1000"
            )
        self.tokenizer = TOKENIZERS[tokenizer]()
        self.bootstrap_samples = bootstrap_samples
        self.seed = seed
        self.original = original
        self.java_timeout = java_timeout
        settings = dict(zip(JAVA_SCORERS, (meteor, spice), strict=True))
        reasons = {name: wanted(name, setting) for name, setting in settings.items()}
        self.java = [name for name, reason in reasons.items() if reason is None]
        self.skipped = {name: reason for name, reason in reasons.items() if reason and settings[name]}
        for name, reason in self.skipped.items():
            log.info("%s is skipped: %s", name.upper(), reason)

    def score(
        self,
        image_ids: Sequence[str],
        candidates: Sequence[str],
        references: Sequence[Sequence[str]],
        intervals: bool = True,
    ) -> Scores:
        """Scores of one candidate per image against its references.

        Without `intervals` this is the fast path for validation: METEOR and SPICE rest too.

        Raises:
            UserError: the lists differ in length or are empty, an image comes twice or has no reference, or
                something else than text is among them.
        """
        _check(image_ids, candidates, references)
        if intervals:
            _warn_of_few(len(image_ids))
        found, expected = self._tokens(candidates, references)
        scores = coco_scores(found, expected)
        if self.original:
            scores |= original_scores(candidates, references)
        skipped = dict(self.skipped)
        for name in self.java if intervals else ():
            try:
                scores |= run(name, found, expected, self.java_timeout)
            except JavaScorerFailed as error:
                skipped[name] = str(error)
                log.warning("%s is skipped: %s", name.upper(), error)
        scores |= text_statistics(found)
        rows = zip(*(values.tolist() for values in scores.per_image.values()), strict=True)
        return Scores(
            scores.corpus,
            bootstrap(scores.statistics, self.bootstrap_samples, self.seed) if intervals else {},
            [dict(zip(scores.per_image, row, strict=True)) for row in rows],
            skipped,
        )

    def _tokens(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[list[str], list[list[str]]]:
        """Tokenized as COCO does: all candidates in one call, all references in another."""
        lines = iter(self.tokenizer.tokenize([text for texts in references for text in texts]))
        expected = [[next(lines) for _ in texts] for texts in references]
        return self.tokenizer.tokenize(candidates), expected


def score(
    image_ids: Sequence[str],
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    intervals: bool = True,
) -> Scores:
    """`CaptionScorer().score(...)`: COCO's metrics without Java, 1000 bootstrap samples.

    Raises:
        UserError: as there.
    """
    return CaptionScorer().score(image_ids, candidates, references, intervals)


def _check(image_ids: Sequence[str], candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises UserError for input that has no score."""
    if not len(image_ids) == len(candidates) == len(references):
        raise UserError(
            f"{len(image_ids)} images, {len(candidates)} captions and {len(references)} lists of references; "
            "expected the same number of each; leave out what has no partner"
        )
    if not len(candidates):
        raise UserError("no caption to score; expected at least one image with a caption and a reference")
    seen: set[str] = set()
    for image_id, candidate, texts in zip(image_ids, candidates, references, strict=True):
        if image_id in seen:
            raise UserError(f"image {image_id!r} comes twice; expected one caption per image; leave one out")
        seen.add(image_id)
        if isinstance(texts, str) or not len(texts):
            raise UserError(
                f"image {image_id!r} has no list of references; expected at least one; leave it out"
            )
        if not isinstance(candidate, str) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"image {image_id!r} has a caption or reference that is no text; expected text")


def _warn_of_few(images: int) -> None:
    """Say once that CIDEr-D of so few images says little."""
    if images < FEW_IMAGES and "few" not in _warned:
        _warned.add("few")
        log.warning(
            "CIDEr-D of %d images, under %d: its word weights come from the references of these images, so "
            "it compares with scores on the same images only, and its intervals are wide",
            images,
            FEW_IMAGES,
        )
