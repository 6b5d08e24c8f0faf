"""Scores as a person reads them: one row per metric, base beside fine-tuned, each with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass

# key -> what it is called, what it is; in the order in which they are shown
METRICS = {
    "cider_d": ("CIDEr-D", "agreement with the references, rare words count more; 0 to 10"),
    "bleu_4": ("BLEU-4", "runs of up to four words shared with the references; 0 to 1"),
    "bleu_3": ("BLEU-3", "runs of up to three words; 0 to 1"),
    "bleu_2": ("BLEU-2", "runs of up to two words; 0 to 1"),
    "bleu_1": ("BLEU-1", "single words; 0 to 1"),
    "rouge_l": ("ROUGE-L", "longest common run of words, gaps allowed; 0 to 1"),
    "meteor": ("METEOR", "words matched by stem and synonym; 0 to 1"),
    "spice": ("SPICE", "objects, attributes and relations; 0 to 1"),
    "loss": ("Loss", "nats per token on the references; lower is better"),
}
LOWER_IS_BETTER = {"loss"}
INTERVAL_ENDS = ("_low", "_high")


@dataclass(frozen=True, slots=True)
class Score:
    """A value with the ends of its 95% interval, None where no interval was computed."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        return number(self.value)

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{number(self.low)} – {number(self.high)}"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of both models; `scale` is the value at the right end of its bar."""

    key: str
    label: str
    hint: str
    tuned: Score | None
    base: Score | None
    scale: float

    @property
    def change(self) -> float | None:
        """How much better fine-tuned is than the base: above 0 is better, also for a loss."""
        if self.tuned is None or self.base is None:
            return None
        change = self.tuned.value - self.base.value
        return -change if self.key in LOWER_IS_BETTER else change

    @property
    def apart(self) -> bool:
        """Whether the two intervals do not touch."""
        pair = (self.tuned, self.base)
        ends = [end for score in pair if score for end in (score.low, score.high)]
        if len(ends) != 4 or None in ends:
            return False
        low, high, other_low, other_high = ends
        return low > other_high or high < other_low  # type: ignore[operator]

    def share(self, value: float) -> float:
        """Where a value lies on the bar, in percent of its length."""
        return round(min(100.0, max(0.0, 100 * value / self.scale)), 2)


def number(value: float) -> str:
    """Three decimals below ten, fewer above: 0.213, 2.314, 11.2, 1204."""
    return f"{value:.{3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0}f}"


def score_rows(metrics: Mapping[str, float], split: str = "test") -> list[ScoreRow]:
    """The known metrics that either model has, in the order of METRICS."""
    rows = []
    for key, (label, hint) in METRICS.items():
        tuned = find_score(metrics, f"{split}/{key}")
        base = find_score(metrics, f"zero_shot/{split}/{key}")
        if tuned or base:
            highest = max(end for score in (tuned, base) if score for end in (score.high or 0, score.value))
            rows.append(ScoreRow(key, label, hint, tuned, base, 1.08 * highest if highest > 0 else 1.0))
    return rows


def find_score(metrics: Mapping[str, float], key: str) -> Score | None:
    """A metric with its interval, None where it was not computed."""
    if key not in metrics:
        return None
    low, high = (metrics.get(key + end) for end in INTERVAL_ENDS)
    return Score(metrics[key], low, high) if low is not None and high is not None else Score(metrics[key])


def other_scores(metrics: Mapping[str, float], split: str = "test") -> list[tuple[str, str, str]]:
    """(name, fine-tuned, base) of what else was measured on the split: lengths, distinct captions..."""
    names = {
        key.removeprefix("zero_shot/").removeprefix(f"{split}/") for key in metrics if f"{split}/" in key
    }
    names = {name for name in names if "/" not in name and not name.endswith(INTERVAL_ENDS)} - set(METRICS)
    pairs = (
        (name, find_score(metrics, f"{split}/{name}"), find_score(metrics, f"zero_shot/{split}/{name}"))
        for name in sorted(names)
    )
    return [
        (name.replace("_", " "), tuned.text if tuned else "–", base.text if base else "–")
        for name, tuned, base in pairs
        if tuned or base
    ]
