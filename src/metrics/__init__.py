"""Caption scores. `CaptionMetrics` is loaded when it is asked for: its base class imports torch."""

from typing import Any

__all__ = ["CaptionMetrics"]


def __getattr__(name: str) -> Any:
    if name == "CaptionMetrics":
        from src.metrics.caption_metrics import CaptionMetrics

        return CaptionMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
