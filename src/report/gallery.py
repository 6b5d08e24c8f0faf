"""Choose the images that a report shows, and encode them small enough to be carried inside an HTML file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from src.report.run_files import Prediction, random_order

MAX_IMAGES = 200
PER_VIEW = 24
RANKED_BY = ("cider_d", "rouge_l", "bleu_4", "bleu_1")
LONGEST_SIDE = 384  # pixels
MAX_BYTES = 50_000  # of an image: 200 of them stay under 15 MB, base64 and captions included
SHRINKING = (
    (1.0, 82),
    (1.0, 68),
    (0.8, 60),
    (0.6, 50),
    (0.4, 40),
)  # fraction of the longest side, JPEG quality

# view -> heading, text of an empty view
VIEWS = {
    "random": ("Random", "No image was captioned."),
    "best": ("Best", "No image has a score."),
    "worst": ("Worst", "No image has a score."),
    "improved": ("Most improved", "No image gained from fine-tuning."),
    "harmed": ("Most harmed", "No image lost by fine-tuning."),
}


@dataclass
class Shown:
    """An image in the gallery and its rank, from 0, in each view that it belongs to."""

    prediction: Prediction
    ranks: dict[str, int] = field(default_factory=dict)


def choose_images(predictions: Sequence[Prediction]) -> tuple[list[Shown], str | None]:
    """Return at most MAX_IMAGES images with their ranks, and the score that ranked them (None without any).

    All images are shown where they fit; else the views' images and a random sample of the others. The random
    view is a fair sample of all, whatever else is shown.
    """
    metric = next((name for name in RANKED_BY if any(name in row.scores for row in predictions)), None)
    order = random_order(len(predictions))
    views = {"random": order[:PER_VIEW]} | (_ranked(predictions, metric) if metric else {})
    chosen: dict[int, Shown] = {}
    for view, indices in views.items():
        for rank, index in enumerate(indices):
            chosen.setdefault(index, Shown(predictions[index])).ranks[view] = rank
    for index in order[:MAX_IMAGES]:
        if len(chosen) < MAX_IMAGES:
            chosen.setdefault(index, Shown(predictions[index]))
    return [chosen[index] for index in sorted(chosen)], metric


def _ranked(predictions: Sequence[Prediction], metric: str) -> dict[str, list[int]]:
    """Return row numbers of the best, worst, most improved and most harmed images."""
    value = {index: row.scores[metric] for index, row in enumerate(predictions) if metric in row.scores}
    best = sorted(value, key=lambda index: (-value[index], index))
    gain = {index: gained for index in value if (gained := gain_of(predictions[index], metric)) is not None}
    rising = sorted(gain, key=lambda index: (-gain[index], index))
    return {
        "best": best[:PER_VIEW],
        "worst": best[::-1][:PER_VIEW],
        "improved": [index for index in rising if gain[index] > 0][:PER_VIEW],
        "harmed": [index for index in rising[::-1] if gain[index] < 0][:PER_VIEW],
    }


def gain_of(prediction: Prediction, metric: str) -> float | None:
    """Return what fine-tuning added to an image's score, None where either model was not scored."""
    base = prediction.scores.get(f"zero_shot_{metric}")
    return None if base is None or metric not in prediction.scores else prediction.scores[metric] - base


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(pixels: np.ndarray, longest_side: int = LONGEST_SIDE, max_bytes: int = MAX_BYTES) -> Thumbnail:
    """Encode pixels uint8 (H,W,3) as a JPEG within both limits, as far as its quality allows."""
    image = Image.fromarray(pixels)
    data = b""
    for fraction, quality in SHRINKING:
        side = round(longest_side * fraction)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        data = buffer.getvalue()
        if len(data) <= max_bytes:
            break
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", *image.size)
