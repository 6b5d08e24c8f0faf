"""The logged numbers of a run over its steps, from the csv logger's file."""

import csv
import math
from pathlib import Path

Point = tuple[float, float]  # step, value

TRAIN_LOSS = ("train/loss_step", "train/loss")  # of each logged step; the mean of each epoch
VAL_LOSS = ("val/loss",)


def read_history(folder: Path) -> list[dict[str, float]]:
    """Rows of every metrics.csv under a run's `csv` folder, by step: the numbers that were logged there.

    A run that was continued has several files; they follow each other by step.

    Raises:
        csv.Error: a file is not csv.
    """
    rows = []
    for path in sorted(folder.rglob("metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += [_numbers(row) for row in csv.DictReader(file)]
    return sorted((row for row in rows if "step" in row), key=lambda row: row["step"])


def _numbers(row: dict[str, str]) -> dict[str, float]:
    """The finite numbers of a row; a row that a kill cut short keeps its whole cells."""
    numbers = {}
    for name, cell in row.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            numbers[name] = value
    return numbers


def curve(history: list[dict[str, float]], names: tuple[str, ...]) -> list[Point]:
    """(step, value) of that one of `names` which was logged most; of equal steps the last one counts."""
    series = [{row["step"]: row[name] for row in history if name in row} for name in names]
    return list(max(series, key=len).items())


def thinned(points: list[Point], most: int) -> list[Point]:
    """At most `most` points, each the mean of a run of neighbours.

    Example: thinned([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], 2) == [(0.5, 2.0), (2.5, 6.0)]
    """
    size = math.ceil(len(points) / most)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    ]
