"""Caption metrics: BLEU, ROUGE-L, CIDEr-D by the COCO protocol, optional METEOR and SPICE."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `CaptionMetrics` on first use: its base class imports torch."""
    if name == "CaptionMetrics":
        from src.metrics.caption_metrics import CaptionMetrics

        return CaptionMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
