"""A table over runs: `python -m src.runs sort=test/cider_d`.

dir=logs                 folder that is searched for metrics.json files
sort=test/cider_d        metric to sort by, best first; - before it turns the order round
columns=val/loss_best,test/cider_d   metrics to show
out=runs.csv             also write all metrics of all runs to this file
"""

import csv
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from src.utils.command import parse_command, run_command
from src.utils.csv_cells import safe_cell
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
COLUMNS = "val/loss_best,test/loss,test/bleu_4,test/cider_d"
LOWER_IS_BETTER = ("loss", "seconds", "skipped", "broken", "perplexity")


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder: its path below the searched one, what was set for it, how it ended, its metrics."""

    name: str
    overrides: tuple[str, ...]
    status: str
    metrics: dict[str, float]


def read_runs(folder: Path) -> list[Run]:
    """Every run below a folder, by name; files that cannot be read are told in the log and left out.

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
        numbers = json.loads(file.read_text(encoding="utf-8"))
        metrics = {str(name): float(value) for name, value in numbers.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("%s left out: %s", file, error)
        return None
    about = file.parent / "run.json"
    try:
        status = str(json.loads(about.read_text(encoding="utf-8")).get("status", ""))
    except (OSError, ValueError, AttributeError):
        status = ""
    return Run(file.parent.relative_to(folder).as_posix(), _overrides(file.parent), status, metrics)


def _overrides(folder: Path) -> tuple[str, ...]:
    """What the command line set, as Hydra kept it: a YAML list of words."""
    file = folder / ".hydra" / "overrides.yaml"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(line[2:] for line in lines if line.startswith("- "))


def sort_runs(runs: Sequence[Run], metric: str) -> list[Run]:
    """Best first, by whether less of the metric is better; runs without it last.

    metric: a key of metrics.json; `-` before it turns the order round.

    Raises:
        UserError: no run has that metric.
    """
    name, turned = metric.removeprefix("-"), metric.startswith("-")
    having = [run for run in runs if name in run.metrics]
    if not having:
        known = sorted({key for run in runs for key in run.metrics})
        near = difflib.get_close_matches(name, known, n=3)
        expected = f"did you mean {' or '.join(near)}" if near else f"expected one of {', '.join(known)}"
        raise UserError(f"sort={metric} is in no run; {expected}; set sort=METRIC")
    falling = (not any(word in name for word in LOWER_IS_BETTER)) ^ turned
    having.sort(key=lambda run: run.metrics[name], reverse=falling)
    return having + [run for run in runs if name not in run.metrics]


def print_table(runs: Sequence[Run], columns: Sequence[str]) -> None:
    """Print the runs, one row each: name, how it ended if not well, what was set for it alone, metrics."""
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
        told = Text(Path(run.name).relative_to(folder).as_posix())
        if run.status not in ("finished", ""):
            told.append(f" ({run.status})", style="red")
        own = [word for word in run.overrides if word not in shared]
        told.append("".join(f"\n  {word}" for word in own), style="dim")
        table.add_row(told, *(_shown(run.metrics, column) for column in columns))
    Console().print(table)


def _shown(metrics: Mapping[str, float], column: str) -> str:
    return f"{metrics[column]:.4g}" if column in metrics else "-"


def write_table(runs: Sequence[Run], path: Path) -> None:
    """Write every metric of every run as CSV, one row per run; no cell is a formula to a spreadsheet."""
    names = sorted({key for run in runs for key in run.metrics})
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(["run", "status", "overrides", *names])
        for run in runs:
            values = [run.metrics.get(name, "") for name in names]
            writer.writerow([safe_cell(run.name), run.status, safe_cell(" ".join(run.overrides)), *values])


def main(arguments: Sequence[str]) -> None:
    """Print the table.

    Raises:
        UserError: an argument that is not known, no runs, or no run with the metric to sort by.
    """
    if any(word in ("-h", "--help") for word in arguments):
        print(__doc__)
        return
    defaults = {"dir": "logs", "sort": "test/cider_d", "columns": COLUMNS, "out": ""}
    settings = parse_command(arguments, defaults)
    columns = [name for name in settings["columns"].split(",") if name]
    metric = settings["sort"].removeprefix("-")
    runs = sort_runs(read_runs(Path(settings["dir"])), settings["sort"])
    print_table(runs, columns if metric in columns else [metric, *columns])
    if settings["out"]:
        write_table(runs, Path(settings["out"]))


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
