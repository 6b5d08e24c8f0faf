"""Scores for people: base beside fine-tuned with 95% intervals, and the summary at the end of a run."""

import importlib.util
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.ticker import MaxNLocator

from src.report.run_files import Prediction, RunFiles, read_config, read_metrics, read_predictions, tidy
from src.utils.errors import UserError
from src.utils.files import local_path
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
FEW_IMAGES = 100
SMALLEST = 0.0005  # a score below is no number with three decimals
MAX_WIDTH = 200  # characters of a printed caption or reference


def number(value: float) -> str:
    """Write a score with three decimals, a small one above 0 as `<0.001`, and no minus before 0.000."""
    return "<0.001" if 0 < value < SMALLEST else f"{round(value, 3) + 0:.3f}"


@dataclass(frozen=True, slots=True)
class Score:
    """A value with the ends of its 95% interval, None where no interval was computed."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> str:
        """The interval as text, "" without one."""
        if self.low is None or self.high is None:
            return ""
        return f"{number(self.low)} \u2013 {number(self.high)}"

    def __str__(self) -> str:
        return f"{number(self.value)} ({self.interval})" if self.interval else number(self.value)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of both models, the paired gain of the fine-tuned one, and the ticks of its axis, from 0."""

    key: str
    label: str
    hint: str
    tuned: Score | None
    base: Score | None
    gain: Score | None
    ticks: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """better, worse or unclear by the 95% interval of the gain, "" without."""
        low, high = (self.gain.low, self.gain.high) if self.gain else (None, None)
        if low is None or high is None:
            return ""
        low, high = (-high, -low) if self.key == "loss" else (low, high)
        return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _score(metrics: Mapping[str, float], key: str) -> Score | None:
    return Score(metrics[key], metrics.get(f"{key}_low"), metrics.get(f"{key}_high")) if key in metrics else None


def score_rows(metrics: Mapping[str, float]) -> list[ScoreRow]:
    """Return the known metrics that either model has, in the order of METRICS."""
    rows = []
    for key, (label, hint) in METRICS.items():
        tuned, base = _score(metrics, f"test/{key}"), _score(metrics, f"zero_shot/test/{key}")
        ends = [end for score in (tuned, base) if score for end in (score.high or 0, score.value)]
        if ends:
            top = max(ends) if max(ends) >= SMALLEST else 1.0
            ticks = tuple(map(float, MaxNLocator(4).tick_values(0, top)))
            rows.append(ScoreRow(key, label, hint, tuned, base, _score(metrics, f"test/{key}_gain"), ticks))
    return rows


def other_scores(metrics: Mapping[str, float]) -> list[tuple[str, Score | None, Score | None]]:
    """Return (name, fine-tuned, base) of the other metrics: lengths, distinct captions..."""
    tested = {key.removeprefix("zero_shot/") for key in metrics if key.startswith(("test/", "zero_shot/test/"))}
    names = sorted(
        {key.removeprefix("test/") for key in tested if not key.endswith(("_low", "_high", "_gain"))} - METRICS.keys()
    )
    pairs = [(_score(metrics, f"test/{name}"), _score(metrics, f"zero_shot/test/{name}")) for name in names]
    return [(name.replace("_", " "), *pair) for name, pair in zip(names, pairs, strict=True)]


def score_table(metrics: Mapping[str, float]) -> pd.DataFrame:
    """Return the known metrics as a table: base, fine-tuned model and gain, each with its 95% interval."""
    rows, columns = score_rows(metrics), {"base": "base", "fine-tuned": "tuned", "gain": "gain"}
    if not any(row.gain for row in rows):
        del columns["gain"]
    table = {label: [str(getattr(row, name) or "-") for row in rows] for label, name in columns.items()}
    return pd.DataFrame(table, index=pd.Index([row.label for row in rows], name="score"))


def read_scores(run_dir: str | Path) -> pd.DataFrame:
    """Return the table of a run's scores; a UserError where it has none."""
    path = Path(run_dir) / "metrics.json"
    if not path.is_file():
        raise UserError(f"run_dir={str(run_dir)!r} has no metrics.json; expected a finished run; choose another")
    return score_table(read_metrics(path))


def small_test_note(metrics: Mapping[str, float]) -> str:
    """Return what the CIDEr-D of few test images is worth, "" of many; an interval shrinks with their square root."""
    score, count = _score(metrics, "test/cider_d"), int(metrics.get("data/test_images", 0))
    if score is None or score.low is None or score.high is None or not 0 < count < FEW_IMAGES:
        return ""
    if count < 5:
        return f"The test set is too small for scores to mean anything (test images: {count}); 100 are a start."
    return (
        f"With {count} test images CIDEr-D is known to about \u00b1{(score.high - score.low) / 2:.2f} (95%) only, and "
        f"compares with scores on these images alone; about {4 * count} would halve the interval."
    )


def next_steps(folder: Path) -> list[str]:
    """Return lines that name the report of a run, and commands as they are typed in the current folder.

    Training on own data is the next step of a run on a named data set alone.
    """
    config = RunFiles(folder).read("config_resolved.yaml", read_config) or {}
    has_own_data = re.search(r"\.(folder|hub|litdata)\.", config.get("datamodule._target_", ""))
    run, python = shlex.quote(local_path(folder)), shlex.quote(local_path(sys.executable))
    page = f"{python} -m src.app checkpoint={run}" if importlib.util.find_spec("gradio") else "make app"
    lines = {
        f"report       {local_path(folder / 'report.html')}": "report.html",
        f"TensorBoard  {python} -m tensorboard.main --logdir {run}": "tensorboard",
        f"page         {page}": "checkpoints",
        f"captions     {python} -m src.predict FOLDER_OF_IMAGES checkpoint={run}": "checkpoints",
    }
    if not has_own_data:
        lines[f"own data     {python} train.py datamodule=folder datamodule.data_dir=FOLDER"] = "checkpoints"
    return ["", *(line for line, file in lines.items() if (folder / file).exists())]


def _hanging(label: str, caption: str) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(tidy(caption)[:MAX_WIDTH], width, initial_indent=label, subsequent_indent=" " * len(label))


def print_summary(folder: Path, metrics: Mapping[str, float]) -> None:
    """Print the scores, base beside fine-tuned, two captions of `predictions.csv`, and commands to go on with."""
    run = RunFiles(folder)
    predictions: list[Prediction] = run.read("predictions.csv", read_predictions) or []
    table = score_table(metrics).rename_axis(None)
    table = table.drop([METRICS[name][0] for name in ("bleu_1", "bleu_2", "bleu_3")], errors="ignore")
    lines = ["", *(table.to_string().splitlines() if len(table) else [])]
    if note := small_test_note(metrics):
        lines += ["", _hanging("", note)]
    lines += [""] if predictions else []
    for row in predictions[:: len(predictions) // 2 or 1][:2]:  # from all over the set
        reference = next(iter(row.references), None)
        texts = {"base": row.zero_shot_caption, "fine-tuned": row.caption, "reference": reference}
        lines += [row.image_id, *(_hanging(f"  {name:<12}", text) for name, text in texts.items() if text is not None)]
    if file := metrics.get("test/cider_d_document_frequencies"):
        lines += [f"CIDEr-D has the document frequencies of {file}"]
    if duplicates := int(metrics.get("data/near_duplicates", 0)):
        lines += [f"validation and test images that look like one of another split (see splits.csv): {duplicates}"]
    print(*(visible(line, keep="\n") for line in [*lines, *run.notes, *next_steps(folder)]), sep="\n")
