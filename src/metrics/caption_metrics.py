"""COCO's caption metrics as a Hugging Face `evaluate` metric: a wrapper of `CaptionScorer`."""

import inspect
from collections.abc import Mapping
from typing import Any

import datasets

import evaluate
from src.metrics.scorer import CaptionScorer
from src.utils.errors import UserError


class CaptionMetrics(evaluate.Metric):
    """BLEU-1..4, ROUGE-L and CIDEr-D (0 to 10): `CaptionMetrics().compute(predictions=..., references=...)`.

    predictions: one caption per image; references: per image, captions or a single one; any iterables, or
    mappings from image ids. settings: those of `CaptionScorer` and `evaluate.Metric`. Writes no files.
    """

    def __init__(self, tokenizer: str = "ptb", **settings: Any) -> None:
        own = inspect.signature(CaptionScorer).parameters & settings.keys()
        self.scorer = CaptionScorer(tokenizer, **{name: settings.pop(name) for name in own})
        self.tokenizer, self.texts, self.lists = tokenizer, list[Any](), list[Any]()
        super().__init__(**settings | {"keep_in_memory": True})

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
        return evaluate.MetricInfo(str(self.__doc__), "", features)

    def _build_data_dir(self) -> str:  # the inherited one creates a folder
        return ""

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Add captions of some images. Raises UserError if predictions and references do not match."""
        if isinstance(predictions, Mapping) and isinstance(references, Mapping):
            if predictions.keys() != references.keys():
                raise UserError("predictions and references differ in image ids; expected the same in both")
            predictions, references = predictions.values(), [references[key] for key in predictions]
        given = predictions, references
        texts, lists = ([] if one is None or isinstance(one, str | Mapping) else list(one) for one in given)
        if len(texts) != len(lists):
            raise UserError(f"{len(texts)} predictions and {len(lists)} references; expected two equal lists")
        self.texts += texts
        self.lists += [[own] if isinstance(own, str) else None if own is None else list(own) for own in lists]

    def add(self, *, prediction: Any = None, reference: Any = None, references: Any = None) -> None:
        """Add the caption and the reference or references of one image."""
        self.add_batch(predictions=[prediction], references=[references if reference is None else reference])

    def compute(self, *, predictions: Any = None, references: Any = None, intervals: bool = False) -> dict:
        """Return the scores of the captions added or given, then forget them. Raises UserError without any."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        texts, lists, self.texts, self.lists = self.texts, self.lists, [], []
        scores = self.scorer.score(list(map(str, range(len(texts)))), texts, lists, intervals=intervals)
        sizes = {"n": len(texts), "references_per_image": sum(map(len, lists)) / len(texts)}
        return scores.flat() | sizes | {"tokenizer": self.tokenizer}
