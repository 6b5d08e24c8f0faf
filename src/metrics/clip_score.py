"""CLIPScore and RefCLIPScore (Hessel et al., 2021), from a CLIP folder or hub id. N images, K texts, E width."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from src.metrics.bootstrap import Floats, Score, mean
from src.utils.errors import UserError

PROMPT, SCALE, BATCH = "A photo depicts ", 2.5, 32


class ClipScorer:
    """Compare captions with images, and with references, by the cosines of a CLIP model's embeddings.

    CLIPScore is 2.5 * max(cos(image, caption), 0); RefCLIPScore its harmonic mean with the largest
    max(cos(caption, reference), 0). UserError where the model cannot be loaded.
    """

    def __init__(self, checkpoint: str) -> None:
        from transformers import CLIPModel, CLIPProcessor

        try:
            self.model = CLIPModel.from_pretrained(checkpoint).eval()
            self.processor: Any = CLIPProcessor.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            expected = "expected a folder or hub id of a CLIP model with its processor"
            raise UserError(f"metrics.clip={checkpoint!r}: {error}; {expected}; set metrics.clip=null") from error

    def score(
        self, images: Iterable[Any], candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, Score]:
        """Score a caption of each of N images, uint8 (H,W,3); returns `clip_score` and `ref_clip_score`."""
        pixels = self._embed(images, lambda some: self.model.get_image_features(**self._inputs(images=some)))
        texts = self._embed_texts(candidates)
        others = iter(self._embed_texts([text for own in references for text in own]))
        clip = SCALE * np.maximum((pixels * texts).sum(axis=1), 0)
        pairs = zip(texts, references, strict=True)
        best = np.array([max((text @ next(others) for _ in own), default=0.0) for text, own in pairs]).clip(0)
        harmonic = 2 * clip * best / np.maximum(clip + best, 1e-12)
        return {"clip_score": mean(clip), "ref_clip_score": mean(harmonic)}

    def _embed_texts(self, texts: Sequence[str]) -> Floats:
        settings = {"padding": True, "truncation": True}
        return self._embed(
            [PROMPT + text for text in texts],
            lambda some: self.model.get_text_features(**self._inputs(text=some, **settings)),
        )

    def _inputs(self, **given: Any) -> Any:
        return self.processor(return_tensors="pt", **given)

    def _embed(self, items: Iterable[Any], encode: Callable[[list[Any]], Any]) -> Floats:
        """Return unit vectors (N,E)."""
        import torch

        rest = iter(items)
        with torch.no_grad():
            found = [encode(some) for some in iter(lambda: list(islice(rest, BATCH)), [])]
        vectors = torch.cat([getattr(one, "pooler_output", one) for one in found]).double().numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
