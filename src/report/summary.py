"""Print the end of a run: a short table of scores, a few captions, and where to look further."""

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.report.run_files import Prediction, RunFiles, read_predictions
from src.report.scores import LOWER_IS_BETTER, Score, score_rows
from src.utils.logging import visible

SHOWN = ("loss", "bleu_4", "cider_d")
MAX_CHARACTERS = 200  # of a printed caption or reference


def print_summary(
    folder: Path, metrics: Mapping[str, float], shown: int = 4, console: Console | None = None
) -> None:
    """Print the scores, base beside fine-tuned, `shown` captions of `predictions.csv`, and the paths."""
    console = console or Console()
    run = RunFiles(folder)
    predictions = run.read("predictions.csv", read_predictions) or []
    table = score_table(metrics, len(predictions))
    if table.row_count:
        console.print(table)
    for row in predictions[:: max(1, len(predictions) // max(1, shown))][:shown]:  # from all over the set
        console.print(caption_text(row))
    lines = list(run.notes)
    lines += [f"{name}: {path}" for name, path in (("Run folder", folder), ("Report", folder / "report.html"))
              if path.exists()]  # fmt: skip
    if (folder / "tensorboard").is_dir():
        lines.append(f"TensorBoard: tensorboard --logdir {folder / 'tensorboard'}")
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=True)


def score_table(metrics: Mapping[str, float], num_images: int = 0, split: str = "test") -> Table:
    """Return loss, BLEU-4 and CIDEr-D of both models with 95% intervals; no rows where nothing was scored."""
    rows = {row.key: row for row in score_rows(metrics, split)}
    has_base = any(row.base for row in rows.values())
    count = f"{num_images:,} " if num_images else ""
    table = Table("", box=box.SIMPLE_HEAD, title=f"{count}{split} images")
    for column in ("zero-shot", "fine-tuned") if has_base else ("fine-tuned",):
        table.add_column(column, justify="right")
    for row in (rows[key] for key in SHOWN if key in rows):
        name = f"{row.label} (nats/token)" if row.key in LOWER_IS_BETTER else row.label
        is_better = row.change is not None and row.change > 0
        cells = [_cell(row.base)] if has_base else []
        table.add_row(name, *cells, _cell(row.tuned, "bold green" if is_better else "bold"))
    return table


def _cell(score: Score | None, style: str = "") -> Text:
    if score is None:
        return Text("-")
    return Text.assemble((score.text, style), (f"  {score.interval}" if score.interval else "", "dim"))


def caption_text(row: Prediction) -> Text:
    """Return an image's captions and first reference, each cut to a length to read; brackets are no markup."""
    lines = [("", row.image_id, "bold")]
    if row.zero_shot_caption is not None:
        lines.append(("  zero-shot   ", row.zero_shot_caption, ""))
    lines.append(("  fine-tuned  ", row.caption, "green"))
    lines += [("  reference   ", text, "dim") for text in row.references[:1]]
    return Text("\n").join(Text(head + _cut(visible(text)), style) for head, text, style in lines)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 4].rstrip()} ..."
