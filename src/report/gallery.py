"""Which pictures a report shows, and under which headings."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from src.report.run_files import Prediction

MOST_PICTURES = 200
PER_VIEW = 24
RANKED_BY = ("cider_d", "rouge_l", "bleu_4", "bleu_1")

# view -> heading, what an empty one means
VIEWS = {
    "random": ("Random", "No picture was captioned."),
    "best": ("Best", "No picture has a score."),
    "worst": ("Worst", "No picture has a score."),
    "improved": ("Most improved", "No picture gained from fine-tuning."),
    "harmed": ("Most harmed", "No picture lost by fine-tuning."),
}


@dataclass
class Shown:
    """A picture in the gallery and its place in each view that it belongs to, from 0."""

    prediction: Prediction
    ranks: dict[str, int] = field(default_factory=dict)


def choose_pictures(predictions: Sequence[Prediction], seed: int = 0) -> tuple[list[Shown], str | None]:
    """At most MOST_PICTURES pictures with their ranks, and the score that ranked them (None without any).

    All pictures are shown where they fit; else the views' pictures and a random sample of the rest. The
    random view is a fair sample of all, whatever else is shown.
    """
    metric = next((name for name in RANKED_BY if any(name in row.scores for row in predictions)), None)
    order = list(range(len(predictions)))
    random.Random(seed).shuffle(order)
    views = {"random": order[:PER_VIEW]} | (_ranked(predictions, metric) if metric else {})
    chosen: dict[int, Shown] = {}
    for view, indices in views.items():
        for rank, index in enumerate(indices):
            chosen.setdefault(index, Shown(predictions[index])).ranks[view] = rank
    for index in order:
        if len(chosen) >= MOST_PICTURES:
            break
        chosen.setdefault(index, Shown(predictions[index]))
    return [chosen[index] for index in sorted(chosen)], metric


def _ranked(predictions: Sequence[Prediction], metric: str) -> dict[str, list[int]]:
    """Row numbers of the best, worst, most improved and most harmed pictures, foremost first."""
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
    """What fine-tuning added to a picture's score, None where either model was not scored."""
    base = prediction.scores.get(f"zero_shot_{metric}")
    return None if base is None or metric not in prediction.scores else prediction.scores[metric] - base
