"""Weight histograms out of a run's TensorBoard files, in bins of equal width."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MOST_WEIGHTS = 6  # of a half of the model: its largest, in the order of the model
BINS = 80
TAIL = 0.001  # share of the values that is left out at either end


@dataclass(frozen=True, slots=True)
class Ridge:
    """One weight over the epochs: `densities` has a list of BINS values per epoch, at `centres`."""

    name: str
    epochs: list[int]
    centres: list[float]
    densities: list[list[float]]


def read_ridges(folder: Path, half: str) -> list[Ridge]:
    """The largest weights under `weights/<half>/...` ("encoder" or "decoder"); [] where there are none."""
    if not folder.is_dir():
        return []
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(folder), {event_accumulator.HISTOGRAMS: 0})
    events.Reload()
    found = {
        tag: events.Histograms(tag)
        for tag in events.Tags()["histograms"]
        if tag.startswith(f"weights/{half}/")
    }
    largest = sorted(found, key=lambda tag: -found[tag][-1].histogram_value.num)[:MOST_WEIGHTS]
    names = _short_names([tag for tag in found if tag in largest])
    return [_ridge(name, found[tag]) for tag, name in names.items()]


def _short_names(tags: list[str]) -> dict[str, str]:
    """What tells each tag from the others: the parts of its name behind those that all share.

    Example: weights/decoder/h.11.mlp.c_fc.weight and .../h.11.attn.c_attn.weight -> mlp.c_fc.weight, ...
    """
    parts = {tag: re.split(r"[./]", tag) for tag in tags}
    levels = list(zip(*parts.values(), strict=False))
    shared = next((level for level, names in enumerate(levels) if len(set(names)) > 1), len(levels) - 2)
    return {tag: ".".join(names[shared:]) for tag, names in parts.items()}


def _ridge(name: str, events: list[Any]) -> Ridge:
    histograms = {
        event.step: event.histogram_value for event in events
    }  # a continued run writes a step again
    ends = [_quantiles(histogram, (TAIL, 1 - TAIL)) for histogram in histograms.values()]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    densities = []
    for histogram in histograms.values():
        limits, shares = _cumulative(histogram)
        mass = np.diff(np.interp(edges, limits, shares))
        densities.append((mass / np.diff(edges)).tolist())
    return Ridge(name, list(histograms), ((edges[:-1] + edges[1:]) / 2).tolist(), densities)


def _cumulative(histogram: Any) -> tuple[np.ndarray, np.ndarray]:
    """Right ends of the buckets within the values' range, and the share of values up to each."""
    counts = np.asarray(histogram.bucket, dtype=float)
    limits = np.clip(np.asarray(histogram.bucket_limit, dtype=float), histogram.min, histogram.max)
    shares = np.cumsum(counts) / max(counts.sum(), 1.0)
    return np.concatenate([[histogram.min], limits]), np.concatenate([[0.0], shares])


def _quantiles(histogram: Any, shares: tuple[float, float]) -> np.ndarray:
    limits, cumulative = _cumulative(histogram)
    return np.interp(shares, cumulative, limits)
