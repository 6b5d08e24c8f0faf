"""Scores for people: one row per metric, base beside fine-tuned, each with its 95% interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# key -> label, explanation; in the order in which they are shown
METRICS = {
    "cider_d": ("CIDEr-D", "agreement with the references, rare n-grams count more; 0 to 10"),
    "bleu_4": ("BLEU-4", "n-grams up to 4 shared with the references; 0 to 1"),
    "bleu_3": ("BLEU-3", "n-grams up to 3; 0 to 1"),
    "bleu_2": ("BLEU-2", "n-grams up to 2; 0 to 1"),
    "bleu_1": ("BLEU-1", "single words; 0 to 1"),
    "rouge_l": ("ROUGE-L", "longest common subsequence of words; 0 to 1"),
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
        return format_number(self.value)

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{format_number(self.low)} \u2013 {format_number(self.high)}"


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
        """Whether both have an interval and the two do not overlap."""
        if not (self.tuned and self.base and self.tuned.interval and self.base.interval):
            return False
        return self.tuned.low > self.base.high or self.tuned.high < self.base.low  # type: ignore[operator]

    def percent(self, value: float) -> float:
        """Where a value lies on the bar, in percent of its length."""
        return round(min(100.0, max(0.0, 100 * value / self.scale)), 2)


def format_number(value: float) -> str:
    """Format with three decimals below ten, fewer above: 0.213, 2.314, 11.2, 1204."""
    return f"{value:.{3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0}f}"


def score_rows(metrics: Mapping[str, float], split: str = "test") -> list[ScoreRow]:
    """Return the known metrics that either model has, in the order of METRICS."""
    rows = []
    for key, (label, hint) in METRICS.items():
        tuned = find_score(metrics, f"{split}/{key}")
        base = find_score(metrics, f"zero_shot/{split}/{key}")
        ends = [end for score in (tuned, base) if score for end in (score.high or 0, score.value)]
        if ends:
            rows.append(ScoreRow(key, label, hint, tuned, base, 1.08 * max(ends) if max(ends) > 0 else 1.0))
    return rows


def find_score(metrics: Mapping[str, float], key: str) -> Score | None:
    """Return a metric with its interval, None where it was not computed."""
    if key not in metrics:
        return None
    low, high = (metrics.get(key + end) for end in INTERVAL_ENDS)
    return Score(metrics[key], low, high) if low is not None and high is not None else Score(metrics[key])


def other_scores(metrics: Mapping[str, float], split: str = "test") -> list[tuple[str, str, str]]:
    """Return (name, fine-tuned, base) of the split's other metrics: lengths, distinct captions..."""
    names = {
        key.removeprefix("zero_shot/").removeprefix(f"{split}/") for key in metrics if f"{split}/" in key
    }
    rows = []
    for name in sorted(names - set(METRICS)):
        if "/" not in name and not name.endswith(INTERVAL_ENDS):
            pair = (find_score(metrics, f"{prefix}{split}/{name}") for prefix in ("", "zero_shot/"))
            tuned, base = (score.text if score else "\u2013" for score in pair)
            rows.append((name.replace("_", " "), tuned, base))
    return rows


def read_scores(run_dir: str | Path) -> "pd.DataFrame":
    """Return the scores of a run as a table, the base beside the fine-tuned model, with 95% intervals.

    Raises:
        UserError: the run has no metrics.json.
    """
    import pandas as pd

    from src.report.run_files import read_metrics

    path = Path(run_dir) / "metrics.json"
    if not path.is_file():
        raise UserError(
            f"run_dir={str(run_dir)!r} has no metrics.json; expected the folder of a finished run; choose another"
        )

    def cell(score: Score | None) -> str:
        return "-" if score is None else f"{score.text} ({score.interval})" if score.interval else score.text

    rows = [(row.label, cell(row.base), cell(row.tuned)) for row in score_rows(read_metrics(path))]
    return pd.DataFrame(rows, columns=["score", "zero-shot", "fine-tuned"]).set_index("score")
