"""Read a run folder's files for the report; a missing or damaged file becomes a note."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.report.cross_attention_maps import read_attention

Point = tuple[float, float]  # optimizer step, value
History = list[dict[str, float]]  # logged numbers by name, sorted by "step"

TEXT_COLUMNS = {"image_id", "path", "box", "span", "caption", "zero_shot_caption", "license"}
TRAIN_LOSS = ("train/loss_step", "train/loss")  # of each logged step; the mean of each epoch
VAL_LOSS = ("val/loss",)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of predictions.csv; zero_shot_caption is None where the base was not scored."""

    image_id: str
    path: str
    caption: str
    zero_shot_caption: str | None
    references: tuple[str, ...]
    license: str
    box: tuple[int, int, int, int] | None  # (left, top, right, bottom) in pixels, of a subfigure
    scores: dict[str, float]  # "cider_d", "zero_shot_cider_d", ...
    span: tuple[int, int] | None = None  # (offset, size) in bytes, of a member of a tar file

    def pixels(self) -> np.ndarray | None:
        """Return uint8 (H,W,3), None where the image cannot be read."""
        from src.datamodule.images.decode import UnreadableImage, load_image

        try:
            return load_image(self.path, self.box, self.span).permute(1, 2, 0).contiguous().numpy()
        except (UnreadableImage, OSError, ValueError):  # a path with a NUL byte is a ValueError
            return None


@dataclass
class RunFiles:
    """Everything that a report shows, and `notes` on what is missing."""

    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    history: History = field(default_factory=list)
    attention: dict[str, dict[str, Any]] = field(default_factory=dict)  # by image_id
    about: dict[str, Any] = field(default_factory=dict)  # run.json
    notes: list[str] = field(default_factory=list)

    @property
    def split(self) -> str:
        """The split that was scored."""
        return str(self.about.get("split") or "test")

    def read(self, name: str, reader: Callable[[Path], Any], consequence: str = "") -> Any:
        """Apply `reader` to a file; None and a note on failure, None alone for a missing file without consequence."""
        path = self.folder / name
        if not path.exists():
            self.notes += [f"No {name}: {consequence}"] if consequence else []
            return None
        try:
            return reader(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            self.notes.append(f"{name} could not be read: {error}")
            return None


def read_run(run_dir: Path) -> RunFiles:
    """Read what there is of a run folder; what is missing or damaged is listed in `notes`, never raised."""
    run = RunFiles(Path(run_dir))
    run.metrics = run.read("metrics.json", read_metrics, "the scores are not shown.") or {}
    run.predictions = run.read("predictions.csv", read_predictions, "there is no gallery.") or []
    run.history = run.read("csv", read_history) or []
    run.attention = run.read("attention.json", read_attention) or {}
    run.about = run.read("run.json", read_json_object, "command, commit and versions are not known.") or {}
    if run.predictions and all(row.zero_shot_caption is None for row in run.predictions):
        run.notes.append("The base model was not scored: captions are shown without a comparison.")
    return run


def read_metrics(path: Path) -> dict[str, float]:
    """Return the finite numbers of metrics.json.

    Raises:
        ValueError: the file is not JSON, or holds something other than an object.
    """
    numbers = {key: value for key, value in read_json_object(path).items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def read_json_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object.

    Raises:
        ValueError: the file is not JSON, or holds something other than an object.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found a {type(content).__name__}")
    return content


def read_predictions(path: Path) -> list[Prediction]:
    """Return one Prediction per row of predictions.csv, in the file's order; text is taken as it is.

    Raises:
        KeyError: the header lacks image_id or caption.
        ValueError: the file is no csv in UTF-8.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig").fillna("")
    return [_prediction(row, path.parent) for row in table.to_dict("records")]


def _prediction(row: dict[Any, str], folder: Path) -> Prediction:
    references = [name for name in row if str(name).startswith("reference_")]
    scores = _finite({name: row[name] for name in sorted(row.keys() - TEXT_COLUMNS - set(references))})
    has_base = any(name.startswith("zero_shot_") for name in scores)
    return Prediction(
        image_id=row["image_id"],
        path=str(folder / row["path"]) if row.get("path") else "",  # relative paths start at the run folder
        caption=row["caption"],
        zero_shot_caption=row.get("zero_shot_caption") or ("" if has_base else None),
        references=tuple(row[name] for name in references if row[name].strip()),
        license=row.get("license", ""),
        box=read_box(row.get("box", "")),
        scores=scores,
        span=read_span(row.get("span", "")),
    )


def read_box(cell: str) -> tuple[int, int, int, int] | None:
    """Return (left, top, right, bottom) of a cell `left top right bottom`, None where it holds no box."""
    return _integers(cell, 4)


def read_span(cell: str) -> tuple[int, int] | None:
    """Return (offset, size) of a cell `offset size`, None where it holds no span."""
    return _integers(cell, 2)


def _integers(cell: str, count: int) -> Any:
    numbers = cell.replace(",", " ").split()
    if len(numbers) != count or not all(number.isdigit() for number in numbers):
        return None
    return tuple(map(int, numbers))


def read_history(folder: Path) -> History:
    """Return the logged numbers of every metrics.csv under a run's `csv` folder, sorted by step.

    A row that was cut short by a kill keeps its complete cells.

    Raises:
        ValueError: a file is not csv.
    """
    rows: list[dict[Any, str]] = []
    for path in sorted(folder.rglob("metrics.csv")):
        rows += pd.read_csv(path, dtype=str, keep_default_na=False).fillna("").to_dict("records")
    numbers = map(_finite, rows)
    return sorted((row for row in numbers if "step" in row), key=lambda row: row["step"])


def _finite(cells: dict[Any, str]) -> dict[str, float]:
    """Return the cells that are finite numbers."""
    numbers = {}
    for name, cell in cells.items():
        try:
            value = float(cell)
        except ValueError:
            continue
        if math.isfinite(value):
            numbers[name] = value
    return numbers


def curve(history: History, names: tuple[str, ...], max_points: int = 400) -> list[Point]:
    """Return (step, value) of that one of `names` which was logged most, averaged to at most `max_points`.

    Of equal steps (a resumed run) the last value counts.
    """
    series = [{row["step"]: row[name] for row in history if name in row} for name in names]
    points = list(max(series, key=len).items())
    size = math.ceil(len(points) / max_points) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(np.mean(group, axis=0).tolist()) for group in groups]  # type: ignore[misc]


def random_order(count: int, seed: int = 0) -> list[int]:
    """Return a fixed random order of row numbers: attention maps and the report's random view take its start."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order
