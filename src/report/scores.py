"""Scores for people: base beside fine-tuned with 95% intervals, and the summary at the end of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.report.run_files import Prediction, RunFiles, read_metrics, read_predictions
from src.utils.errors import UserError
from src.utils.logging import visible

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
    "loss": ("Loss, nats per token", "on the references; lower is better"),
}
INTERVAL_ENDS = ("_low", "_high")
SUMMARY = ("cider_d", "bleu_4", "loss")
MAX_WIDTH = 200  # of a printed caption or reference


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

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})" if self.interval else self.text


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
        return (self.tuned.value - self.base.value) * (-1 if self.key == "loss" else 1)

    @property
    def is_separate(self) -> bool:
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


def score_rows(metrics: Mapping[str, float]) -> list[ScoreRow]:
    """Return the known metrics that either model has, in the order of METRICS."""
    rows = []
    for key, (label, hint) in METRICS.items():
        tuned, base = (find_score(metrics, f"{prefix}test/{key}") for prefix in ("", "zero_shot/"))
        ends = [end for score in (tuned, base) if score for end in (score.high or 0, score.value)]
        if ends:
            rows.append(ScoreRow(key, label, hint, tuned, base, 1.08 * max(ends) if max(ends) > 0 else 1.0))
    return rows


def find_score(metrics: Mapping[str, float], key: str) -> Score | None:
    """Return a metric with its interval, None where it was not computed."""
    return Score(metrics[key], *(metrics.get(key + end) for end in INTERVAL_ENDS)) if key in metrics else None


def other_scores(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return (name, fine-tuned, base) of the other metrics: lengths, distinct captions..."""
    keys = {key.removeprefix("zero_shot/") for key in metrics}
    rows = []
    for name in sorted(key.removeprefix("test/") for key in keys if key.startswith("test/")):
        if name not in METRICS and "/" not in name and not name.endswith(INTERVAL_ENDS):
            pair = (find_score(metrics, f"{prefix}test/{name}") for prefix in ("", "zero_shot/"))
            tuned, base = (score.text if score else "\u2013" for score in pair)
            rows.append((name.replace("_", " "), tuned, base))
    return rows


def read_scores(run_dir: str | Path) -> pd.DataFrame:
    """Return the scores of a run as a table, the base beside the fine-tuned model, with 95% intervals."""
    path = Path(run_dir) / "metrics.json"
    if not path.is_file():
        raise UserError(f"run_dir={str(run_dir)!r} has no metrics.json; expected a finished run; choose another")
    rows = [(row.label, str(row.base or "-"), str(row.tuned or "-")) for row in score_rows(read_metrics(path))]
    return pd.DataFrame(rows, columns=["score", "zero-shot", "fine-tuned"]).set_index("score")


def print_summary(folder: Path, metrics: Mapping[str, float], shown: int = 4, console: Console | None = None) -> None:
    """Print the scores, base beside fine-tuned, `shown` captions of `predictions.csv`, and the paths."""
    console = console or Console()
    run = RunFiles(folder)
    predictions = run.read("predictions.csv", read_predictions) or []
    rows = [row for row in score_rows(metrics) if row.key in SUMMARY]
    table = Table("", box=box.SIMPLE_HEAD, title=f"{len(predictions) or ''} test images".strip())
    for column in ("zero-shot", "fine-tuned"):
        table.add_column(column, justify="right")
    for row in rows:
        style = "bold green" if row.change is not None and row.change > 0 else "bold"
        table.add_row(row.label, str(row.base or "-"), Text(str(row.tuned or "-"), style))
    if rows:
        console.print(table)
    for prediction in predictions[:: max(1, len(predictions) // max(1, shown))][:shown]:  # from all over the set
        console.print(_caption_text(prediction))
    paths = {"Run folder": folder, "Report": folder / "report.html"}
    lines = [*run.notes, *(f"{name}: {path}" for name, path in paths.items() if path.exists())]
    if (folder / "tensorboard").is_dir():
        lines.append(f"TensorBoard: tensorboard --logdir {folder / 'tensorboard'}")
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=True)


def _caption_text(row: Prediction) -> Text:
    """Return an image's captions and first reference, each cut to a length to read; brackets are no markup."""
    reference = next(iter(row.references), None)
    lines = [("", row.image_id, "bold"), ("  zero-shot   ", row.zero_shot_caption, ""),
             ("  fine-tuned  ", row.caption, "green"), ("  reference   ", reference, "dim")]  # fmt: skip
    shown = [(head + visible(text), style) for head, text, style in lines if text is not None]
    cut = [Text(text if len(text) <= MAX_WIDTH else f"{text[:MAX_WIDTH]} ...", style) for text, style in shown]
    return Text("\n").join(cut)
