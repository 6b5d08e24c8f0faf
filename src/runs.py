"""Print a table of runs: python -m src.runs [sort=test/cider_d]

dir=logs                 folder that is searched for metrics.json files
sort=test/cider_d        metric to sort by, best first; a leading - reverses the order
columns=val/loss_best,test/cider_d   metrics to show
out=                     also write all metrics of all runs to this csv file
"""

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
DEFAULTS = {
    "dir": "logs", "sort": "test/cider_d", "columns": "val/loss_best,test/loss,test/bleu_4,test/cider_d", "out": "",
}  # fmt: skip
LOWER_IS_BETTER = ("loss", "seconds", "skipped", "unreadable", "perplexity")


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder: its path below the searched one, its overrides, how it ended, its metrics."""

    name: str
    overrides: tuple[str, ...]
    status: str
    metrics: dict[str, float]


def read_runs(folder: Path) -> list[Run]:
    """Read every run below a folder, by name; unreadable files are logged and skipped.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"dir={folder} does not exist; expected a folder of runs; set dir=FOLDER")
    runs = [run for file in sorted(folder.rglob("metrics.json")) if (run := _read(file, folder))]
    if not runs:
        raise UserError(f"dir={folder} holds no metrics.json; expected finished runs; run train.py first")
    return runs


def _read(file: Path, folder: Path) -> Run | None:
    try:
        metrics = {str(name): float(value) for name, value in _read_json(file).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("%s skipped: %s", file, error)
        return None
    try:
        status = str(_read_json(file.parent / "run.json").get("status", ""))
    except (OSError, ValueError, AttributeError):
        status = ""
    try:  # as Hydra writes it: a YAML list of strings
        lines = (file.parent / ".hydra" / "overrides.yaml").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    overrides = tuple(line[2:] for line in lines if line.startswith("- "))
    return Run(file.parent.relative_to(folder).as_posix(), overrides, status, metrics)


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def sort_runs(runs: Sequence[Run], metric: str) -> list[Run]:
    """Sort best first, by whether lower is better for the metric; runs without it come last.

    metric: a key of metrics.json; a leading `-` reverses the order.

    Raises:
        UserError: no run has that metric.
    """
    name, is_reversed = metric.removeprefix("-"), metric.startswith("-")
    having = [run for run in runs if name in run.metrics]
    if not having:
        known = sorted({key for run in runs for key in run.metrics})
        near = difflib.get_close_matches(name, known, n=3)
        expected = f"did you mean {' or '.join(near)}" if near else f"expected one of {', '.join(known)}"
        raise UserError(f"sort={metric} is in no run; {expected}; set sort=METRIC")
    descending = (not any(word in name for word in LOWER_IS_BETTER)) ^ is_reversed
    having.sort(key=lambda run: run.metrics[name], reverse=descending)
    return having + [run for run in runs if name not in run.metrics]


def print_table(runs: Sequence[Run], columns: Sequence[str]) -> None:
    """Print one row per run: name, how it ended unless finished, the overrides that differ, metrics."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    folder = commonpath([Path(run.name).parent for run in runs])
    title = f"{len(runs)} runs" + (f" in {folder}" if folder else "")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("run", overflow="fold")
    for column in columns:
        table.add_column(column.replace("/", "/\n"), justify="right", no_wrap=True)
    shared = set.intersection(*(set(run.overrides) for run in runs)) if len(runs) > 1 else set()
    for run in runs:
        name = Text(Path(run.name).relative_to(folder).as_posix())
        if run.status not in ("finished", ""):
            name.append(f" ({run.status})", style="red")
        own = [override for override in run.overrides if override not in shared]
        name.append("".join(f"\n  {override}" for override in own), style="dim")
        cells = (f"{run.metrics[column]:.4g}" if column in run.metrics else "-" for column in columns)
        table.add_row(name, *cells)
    Console().print(table)


def write_table(runs: Sequence[Run], path: Path) -> None:
    """Write every metric of every run as csv, one row per run."""
    import pandas as pd

    about = [{"run": run.name, "status": run.status, "overrides": " ".join(run.overrides)} for run in runs]
    metrics = pd.DataFrame([run.metrics for run in runs]).sort_index(axis="columns")
    with atomic_write(path) as file:
        pd.concat([pd.DataFrame(about), metrics], axis="columns").to_csv(file, index=False)


def main(arguments: Sequence[str]) -> None:
    """Print the table.

    Raises:
        UserError: an unknown argument, no runs, or no run with the metric to sort by.
    """
    settings = parse_command(arguments, DEFAULTS)
    columns = [name for name in settings["columns"].split(",") if name]
    metric = settings["sort"].removeprefix("-")
    runs = sort_runs(read_runs(Path(settings["dir"])), settings["sort"])
    print_table(runs, columns if metric in columns else [metric, *columns])
    if settings["out"]:
        write_table(runs, Path(settings["out"]))


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
