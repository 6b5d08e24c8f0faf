"""What the person sees at the end of a run: a short table, a few captions, and where to look further."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.report.printable import printable
from src.report.run_files import Prediction, RunFiles, read_predictions
from src.report.scores import LOWER_IS_BETTER, Score, score_rows

SHOWN = ("loss", "bleu_4", "cider_d")


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
    for text in caption_texts(predictions, shown):
        console.print(text)
    for note in run.notes:
        console.print(Text(printable(note)))
    places = [("Run folder", folder), ("Report", folder / "report.html")]
    for name, path in places:
        if path.exists():
            console.print(Text(printable(f"{name}: {path}")), soft_wrap=True)
    if (folder / "tensorboard").is_dir():
        console.print(Text(f"TensorBoard: tensorboard --logdir {folder / 'tensorboard'}"), soft_wrap=True)


def score_table(metrics: Mapping[str, float], pictures: int = 0, split: str = "test") -> Table:
    """Loss, BLEU-4 and CIDEr-D of both models with 95% intervals; no rows where nothing was scored."""
    rows = {row.key: row for row in score_rows(metrics, split)}
    with_base = any(row.base for row in rows.values())
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{pictures:,} {split} images" if pictures else f"{split} images"
    )
    table.add_column("")
    for column in ("zero-shot", "fine-tuned") if with_base else ("fine-tuned",):
        table.add_column(column, justify="right")
    for key in SHOWN:
        if key in rows:
            row = rows[key]
            name = f"{row.label} (nats/token)" if key in LOWER_IS_BETTER else row.label
            better = row.change is not None and row.change > 0
            cells = [_cell(row.base)] if with_base else []
            table.add_row(name, *cells, _cell(row.tuned, "bold green" if better else "bold"))
    return table


def caption_texts(predictions: Sequence[Prediction], shown: int) -> list[Text]:
    """`shown` pictures from all over the set, each with both captions and its first reference."""
    step = max(1, len(predictions) // max(1, shown))
    return [_caption(row) for row in predictions[::step][:shown]]


def _cell(score: Score | None, style: str = "") -> Text:
    if score is None:
        return Text("-")
    interval = f"  {score.interval}" if score.interval else ""
    return Text.assemble((score.text, style), (interval, "dim"))


def _caption(row: Prediction) -> Text:
    """Assembled as Text, so that brackets in a caption are brackets and no markup."""
    lines = [(row.image_id, "bold")]
    if row.zero_shot_caption is not None:
        lines.append((f"  zero-shot   {row.zero_shot_caption}", ""))
    lines.append((f"  fine-tuned  {row.caption}", "green"))
    lines += [(f"  reference   {text}", "dim") for text in row.references[:1]]
    return Text("\n").join(Text(printable(line).replace("\n", " "), style) for line, style in lines)
