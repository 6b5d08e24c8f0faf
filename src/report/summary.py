"""What the person sees at the end of a run: a short table, a few captions, and where to look further."""

import csv
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from src.utils.csv_cells import plain_cell

ROWS = {"loss": "loss (nats/token)", "bleu_4": "BLEU-4", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D"}


def print_summary(folder: Path, metrics: Mapping[str, float], shown: int = 4) -> None:
    """Print scores with their intervals, base beside fine-tuned, and `shown` captions of `predictions.csv`."""
    console = Console()
    table = Table(title="Test images")
    for column in ("", "zero-shot", "fine-tuned"):
        table.add_column(column, justify="left" if not column else "right")
    for key, name in ROWS.items():
        if f"test/{key}" in metrics:
            table.add_row(name, _cell(metrics, f"zero_shot/test/{key}"), _cell(metrics, f"test/{key}"))
    if table.row_count:
        console.print(table)
    for row in _rows(folder / "predictions.csv")[:shown]:
        console.print(f"[bold]{escape(row['image_id'])}[/bold]")
        if row.get("zero_shot_caption"):
            console.print(f"  zero-shot   {escape(row['zero_shot_caption'])}")
        console.print(f"  fine-tuned  {escape(row['caption'])}")
        console.print(f"  [dim]reference   {escape(row['reference_1'])}[/dim]")
    console.print(f"Run folder: {escape(str(folder))}", soft_wrap=True)
    if (folder / "tensorboard").is_dir():
        console.print(f"Curves: tensorboard --logdir {escape(str(folder / 'tensorboard'))}", soft_wrap=True)


def _cell(metrics: Mapping[str, float], key: str) -> str:
    if key not in metrics:
        return "-"
    interval = f" ({metrics[f'{key}_low']:.3f} to {metrics[f'{key}_high']:.3f})" if f"{key}_low" in metrics else ""
    return f"{metrics[key]:.3f}{interval}"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: plain_cell(value) for key, value in row.items()} for row in csv.DictReader(file)]
