"""COCO's caption metrics as a Hugging Face `evaluate` metric."""

from collections.abc import Sequence
from typing import Any

import datasets

import evaluate
from src.metrics.scorer import CaptionScorer
from src.utils.errors import UserError

DESCRIPTION = (
    "BLEU-1..4, ROUGE-L and CIDEr-D of image captions by the COCO protocol, tokenizer included, without Java."
)
INPUTS = """
predictions: one caption per image.
references: per image, a list of captions, or a single caption.
intervals: add `<score>_low` and `<score>_high`, 95% bootstrap intervals over images. Default: False.
"""
CITATION = """@article{chen2015microsoft,
title={Microsoft COCO Captions: Data Collection and Evaluation Server},
author={Chen, Xinlei and others}, journal={arXiv:1504.00325}, year={2015}}"""


class CaptionMetrics(evaluate.Metric):
    """`CaptionMetrics(tokenizer="ptb").compute(predictions=[...], references=[[...]])`.

    Gives `bleu_1`..`bleu_4`, `rouge_l`, `cider_d` (0 to 10), `distinct_share`, `mean_length`,
    `repeated_ngram_share`, and `n` (images), `references_per_image` (mean) and `tokenizer`. Needs no network;
    keeps what is added in memory unless `keep_in_memory=False`.
    """

    def __init__(self, tokenizer: str = "ptb", *, keep_in_memory: bool = True, **settings: Any) -> None:
        """settings: those of `CaptionScorer` (`bootstrap_samples`, `meteor`, ...) and of `evaluate.Metric`.

        Raises:
            UserError: a setting that `CaptionScorer` refuses.
        """
        own = ("bootstrap_samples", "seed", "meteor", "spice", "original", "java_timeout")
        self.scorer = CaptionScorer(tokenizer, **{key: settings.pop(key) for key in own if key in settings})
        self._tokenizer_name = tokenizer
        self._in_memory = keep_in_memory
        super().__init__(keep_in_memory=keep_in_memory, **settings)

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("string"),
            "references": datasets.Sequence(datasets.Value("string")),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _build_data_dir(self) -> str:
        """No folder is made, and none has to be writable, for what stays in memory."""
        return self._data_dir_root if self._in_memory else super()._build_data_dir()

    def add_batch(
        self,
        *,
        predictions: Sequence[str] | None = None,
        references: Sequence[Sequence[str] | str] | None = None,
        **others: Any,
    ) -> None:
        """Add captions and references of some images.

        Raises:
            UserError: their numbers differ, one of the two is missing, or something in them is no text.
        """
        if predictions is None or references is None or len(predictions) != len(references):
            counts = ["no" if items is None else str(len(items)) for items in (predictions, references)]
            raise UserError(
                f"{counts[0]} predictions and {counts[1]} references; expected a list of references each"
            )
        if not len(predictions):
            return
        lists = [[texts] if isinstance(texts, str) else list(texts) for texts in references]
        if not all(isinstance(text, str) for texts in [predictions, *lists] for text in texts):
            raise UserError("a prediction or a reference is no text; expected text; leave the image out")
        super().add_batch(predictions=list(predictions), references=lists, **others)

    def add(
        self, *, prediction: str | None = None, references: Sequence[str] | str | None = None, **others: Any
    ):
        """Add the caption and the references of one image.

        Raises:
            UserError: one of the two is missing.
        """
        if prediction is None or references is None:
            raise UserError("a prediction or its references are missing; expected both; give both")
        self.add_batch(predictions=[prediction], references=[references], **others)

    def compute(
        self, *, predictions: Any = None, references: Any = None, **settings: Any
    ) -> dict[str, Any] | None:
        """Scores of all that was added, or of what is given here; empties the metric.

        Raises:
            UserError: nothing to score, or input that `CaptionScorer.score` refuses.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if self.writer is None:
            raise UserError("no caption to score; expected predictions and references; add some first")
        return super().compute(**settings)

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], intervals: bool = False
    ) -> dict[str, Any]:
        ids = [str(index) for index in range(len(predictions))]
        scores = self.scorer.score(ids, predictions, references, intervals=intervals)
        bounds = {f"{name}_low": low for name, (low, _) in scores.intervals.items()}
        bounds |= {f"{name}_high": high for name, (_, high) in scores.intervals.items()}
        return {
            **scores.corpus,
            **bounds,
            "n": len(predictions),
            "references_per_image": sum(map(len, references)) / len(references),
            "tokenizer": self._tokenizer_name,
        }

    def per_image(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[dict[str, float]]:
        """One row of scores per image; CIDEr-D with the document frequencies of all of them.

        Raises:
            UserError: input that `CaptionScorer.score` refuses.
        """
        ids = [str(index) for index in range(len(predictions))]
        lists = [[texts] if isinstance(texts, str) else texts for texts in references]
        return self.scorer.score(ids, predictions, lists, intervals=False).per_image
