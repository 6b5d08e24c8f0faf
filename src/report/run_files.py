"""What a run folder says, read with nothing but the standard library; a missing piece becomes a note."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.report.attention import read_attention
from src.report.history import read_history

TEXT_COLUMNS = {"image_id", "path", "box", "span", "caption", "zero_shot_caption", "license"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One picture of predictions.csv; zero_shot_caption is None where the base was not asked."""

    image_id: str
    path: str
    caption: str
    zero_shot_caption: str | None
    references: tuple[str, ...]
    license: str
    box: tuple[int, int, int, int] | None  # (left, top, right, bottom) in pixels, of a part of the picture
    scores: dict[str, float]  # "cider_d", "zero_shot_cider_d", ...
    span: tuple[int, int] | None = None  # (offset, size) in bytes, of an image within the tar file at `path`


@dataclass
class RunFiles:
    """Everything that a report shows, and `notes` on what is not there."""

    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    attention: dict[str, dict[str, Any]] = field(default_factory=dict)  # of an image_id
    about: dict[str, Any] = field(default_factory=dict)  # run.json
    notes: list[str] = field(default_factory=list)

    @property
    def split(self) -> str:
        """The part of the data that was scored."""
        return str(self.about.get("split") or "test")

    def read(self, name: str, reader: Callable[[Path], Any], lack: str = "") -> Any:
        """What `reader` makes of a file, or None and a note; without `lack` a missing file is no news."""
        path = self.folder / name
        if not path.exists():
            self.notes += [f"No {name}: {lack}"] if lack else []
            return None
        try:
            return reader(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
            self.notes.append(f"{name} could not be read: {error}")
            return None


def read_run(run_dir: Path) -> RunFiles:
    """Read what there is of a run folder; what is missing or damaged is told in `notes`, never raised."""
    run = RunFiles(Path(run_dir))
    run.metrics = run.read("metrics.json", read_metrics, "the scores are not shown.") or {}
    run.predictions = run.read("predictions.csv", read_predictions, "there is no gallery.") or []
    run.history = run.read("csv", read_history) or []
    run.attention = run.read("attention.json", read_attention) or {}
    run.about = run.read("run.json", read_json_object, "command, commit and versions are not known.") or {}
    if run.predictions and all(row.zero_shot_caption is None for row in run.predictions):
        run.notes.append("The base model was not asked: captions stand without a comparison.")
    return run


def read_json_object(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        ValueError: the file is not JSON, or holds something other than an object.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found a {type(content).__name__}")
    return content


def read_metrics(path: Path) -> dict[str, float]:
    """The finite numbers of metrics.json."""
    content = read_json_object(path)
    numbers = {key: value for key, value in content.items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def read_predictions(path: Path) -> list[Prediction]:
    """One Prediction per row of predictions.csv, in the file's order.

    Raises:
        KeyError: the header lacks image_id or caption.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [_prediction(row, path.parent) for row in csv.DictReader(file)]


def _prediction(row: dict[str, Any], folder: Path) -> Prediction:
    cells = {name: value or "" for name, value in row.items() if isinstance(name, str)}
    references = [name for name in cells if name.startswith("reference_")]
    scores = _scores({name: cells[name] for name in cells.keys() - TEXT_COLUMNS - set(references)})
    asked = any(name.startswith("zero_shot_") for name in scores)
    return Prediction(
        image_id=cells["image_id"],
        path=str(folder / cells["path"]) if cells.get("path") else "",  # relative ones lie with the run
        caption=cells["caption"],
        zero_shot_caption=cells.get("zero_shot_caption") or ("" if asked else None),
        references=tuple(cells[name] for name in references if cells[name].strip()),
        license=cells.get("license", ""),
        box=read_box(cells.get("box", "")),
        span=read_span(cells.get("span", "")),
        scores=scores,
    )


def read_span(cell: str) -> tuple[int, int] | None:
    """(offset, size) in bytes of a cell `offset size`; None where it holds no span."""
    numbers = cell.split()
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and cell.replace(" ", "").isdigit() else None


def read_box(cell: str) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of a cell `left top right bottom`, None where it holds no box."""
    numbers = cell.replace(",", " ").split()
    if len(numbers) != 4 or not all(number.isdigit() for number in numbers):
        return None
    left, top, right, bottom = map(int, numbers)
    return left, top, right, bottom


def _scores(cells: dict[str, str]) -> dict[str, float]:
    """The cells that are finite numbers: a score that was not computed has an empty cell."""
    scores = {}
    for name, cell in sorted(cells.items()):
        try:
            value = float(cell)
        except ValueError:
            continue
        if math.isfinite(value):
            scores[name] = value
    return scores
