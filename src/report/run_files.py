"""Read a run folder's files for the report; a missing or damaged file becomes a note.

attention.json says where in the image the decoder attended for each word of a caption. It is a list of {"image_id",
"words": [str] (W), "height": h, "width": w, "region", "heat"}: heat is a base64 string of h*w bytes per word; region
is [left, top, right, bottom] of the encoder's visible crop, as fractions of the image.
"""

import base64
import csv
import json
import math
import random
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from src.utils.logging import visible
from src.utils.run_folder import flat

if TYPE_CHECKING:
    from src.models.attention_maps import WordAttention

History = list[dict[str, float]]  # logged numbers by name, sorted by "step"

TEXT_COLUMNS = {"image_id", "path", "box", "span", "caption", "zero_shot_caption", "license"}
# curve -> its label, what is best, names of its training and validation numbers (of each step or epoch)
CURVES: dict[str, tuple[str, Any, tuple[str, ...], tuple[str, ...]]] = {
    "loss": ("loss, nats per token", min, ("train/loss_step", "train/loss"), ("val/loss",)),
    "cider_d": ("CIDEr-D", max, (), ("val/cider_d",)),
}
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error, yaml.YAMLError)


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
    span: Any = None  # as in CaptionedImage: where an image in a tar or parquet file stands

    def pixels(self) -> np.ndarray | None:
        """Return uint8 (H,W,3), None where the image cannot be read."""
        from src.datamodule.images.decode import UnreadableImage, load_image

        try:
            return load_image(self.path, self.box, self.span).permute(1, 2, 0).contiguous().numpy()
        except UnreadableImage:
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
    config: dict[str, Any] = field(default_factory=dict)  # config_resolved.yaml, by dotted key
    notes: list[str] = field(default_factory=list)

    def read(self, name: str, reader: Callable[[Path], Any], consequence: str = "") -> Any:
        """Apply `reader` to a file; None and a note on failure, None alone for a missing file without consequence."""
        path = self.folder / name
        if not path.exists():
            self.notes += [f"No {name}: {consequence}"] if consequence else []
            return None
        try:
            return reader(path)
        except DAMAGED as error:
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
    run.config = run.read("config_resolved.yaml", read_config) or {}
    if run.predictions and all(row.zero_shot_caption is None for row in run.predictions):
        run.notes.append("The base model was not scored: captions are shown without a comparison.")
    return run


def read_json_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; raises ValueError or TypeError where it holds something else."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def read_config(path: Path) -> dict[str, Any]:
    """Return a YAML file's values by dotted key; raises as `read_json_object`, or YAMLError."""
    return dict(flat(dict(yaml.safe_load(path.read_text(encoding="utf-8")))))


def read_metrics(path: Path) -> dict[str, float]:
    """Return the finite numbers of metrics.json; raises as `read_json_object`."""
    return finite_floats(read_json_object(path))


def finite_floats(values: Mapping[Any, Any]) -> dict[str, float]:
    """Convert numbers, tensors and text to floats; drop what is not a finite number."""
    numbers = {}
    for name, value in values.items():
        with suppress(TypeError, ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                numbers[name] = number
    return numbers


def read_predictions(path: Path) -> list[Prediction]:
    """Return one Prediction per row of predictions.csv, in the file's order; text is taken as it is.

    Raises csv.Error where it is no csv file, ValueError where it is not UTF-8 or lacks image_id or caption.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", restval="")
        if not {"image_id", "caption"} <= set(columns := reader.fieldnames or ()):
            raise ValueError(f"expected the columns image_id, caption, found {', '.join(columns) or 'none'}")
        return [_prediction(row, path.parent) for row in reader]


def _prediction(row: dict[str, Any], folder: Path) -> Prediction:
    references = filter(re.compile(r"reference_\d+").fullmatch, row)
    numeric = [name for name in row if name not in TEXT_COLUMNS and not name.startswith("reference_")]
    scores = finite_floats({name: row[name] for name in numeric})
    has_base = any(name.startswith("zero_shot_") for name in scores)
    return Prediction(
        image_id=row["image_id"],
        path=str(folder / row["path"]) if row.get("path") else "",  # relative paths start at the run folder
        caption=row["caption"],
        zero_shot_caption=row.get("zero_shot_caption") or ("" if has_base else None),
        references=tuple(row[name] for name in references if row[name].strip()),
        license=row.get("license", ""),
        box=_integers(row.get("box", ""), 4),
        scores=scores,
        span=_integers(row.get("span", ""), 2) or _cell(row.get("span", "")),
    )


def _integers(cell: str, count: int) -> Any:
    numbers = cell.split()
    return tuple(map(int, numbers)) if len(numbers) == count and all(map(str.isdecimal, numbers)) else None


def _cell(span: str) -> tuple[str, int] | None:
    column, _, row = span.rpartition(" ")
    return (column, int(row)) if column and row.isdecimal() else None


def encode_attention(image_id: str, attention: "WordAttention") -> dict[str, Any]:
    """Return one entry of attention.json; heat f32 (W,h,w) in 0..1 becomes one byte per patch."""
    heat = (attention.heat * 255).round().clamp(0, 255).byte().numpy()  # (W,h,w)
    return {
        "image_id": image_id,
        "words": [visible(word) for word in attention.words],
        "height": int(heat.shape[1]),
        "width": int(heat.shape[2]),
        "region": list(attention.region),
        "heat": [base64.b64encode(grid.tobytes()).decode() for grid in heat],
    }


def read_attention(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of attention.json by image_id, heat still encoded.

    Raises ValueError, TypeError or KeyError where the file is not JSON, or a field is missing or of another size.
    """
    maps = {entry["image_id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    for image_id, entry in maps.items():
        entry["words"] = [visible(word) for word in entry["words"]]
        sizes = [len(base64.b64decode(grid, validate=True)) for grid in entry["heat"]]
        if sizes != [entry["height"] * entry["width"]] * len(entry["words"]) or len(entry["region"]) != 4:
            raise ValueError(f"the attention map of {image_id!r} does not fit its words")
    return maps


def read_history(folder: Path) -> History:
    """Return the logged numbers of every metrics.csv under a run's `csv` folder, sorted by step.

    A row that was cut short by a kill keeps its complete cells. Raises ValueError where a file is not UTF-8.
    """
    rows: History = []
    for path in sorted(folder.rglob("metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += map(finite_floats, csv.DictReader(file, restkey="", restval=""))
    return sorted((row for row in rows if "step" in row), key=lambda row: row["step"])


def curve(history: History, names: tuple[str, ...], max_points: int = 400) -> list[tuple[float, float]]:
    """Return (step, value) of that one of `names` which was logged most, averaged to at most `max_points`."""
    # Of equal steps (a resumed run) the last value counts.
    series = [{row["step"]: row[name] for row in history if name in row} for name in names]
    points = list(max(series, key=len, default={}).items())
    size = math.ceil(len(points) / max_points) or 1
    means = [np.mean(points[start : start + size], axis=0) for start in range(0, len(points), size)]
    return [(float(step), float(value)) for step, value in means]


def tidy(caption: str) -> str:
    """Return a caption as it is shown: without the blanks that tokenizers leave before punctuation."""
    return re.sub(r" +([,.;:!?%)\]]|'\w)", r"\1", caption)


def random_order(count: int) -> list[int]:
    """Return a fixed random order of row numbers: attention maps and the report's random view take its start."""
    order = list(range(count))
    random.Random(0).shuffle(order)
    return order
