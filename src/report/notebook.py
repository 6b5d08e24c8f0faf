"""What demo.ipynb shows of a run folder: scores, captioned pictures, and where each word looked."""

import base64
import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.datamodule.images.decode import UnreadableImage, load_image
from src.report.attention import read_attention
from src.report.run_files import Prediction, read_predictions
from src.report.scores import Score, score_rows
from src.utils.errors import UserError

COLUMNS = 3  # pictures or words side by side


def read_scores(run_dir: str | Path) -> pd.DataFrame:
    """The scores of a run, the untouched base beside the fine-tuned model; intervals are 95%.

    Raises:
        UserError: the run has no metrics.json.
    """
    path = Path(run_dir) / "metrics.json"
    if not path.is_file():
        raise UserError(
            f"run_dir={str(run_dir)!r} has no metrics.json; expected the folder of a finished run; choose another"
        )
    rows = [
        {"score": row.label, "zero-shot": _text(row.base), "fine-tuned": _text(row.tuned)}
        for row in score_rows(json.loads(path.read_text(encoding="utf-8")))
    ]
    return pd.DataFrame(rows).set_index("score")


def _text(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{score.text} ({score.interval})" if score.interval else score.text


def draw_pictures(run_dir: str | Path, count: int = 6) -> Figure:
    """The first `count` test pictures that are there, with both captions and a reference."""
    shown = [
        row for row in read_predictions(Path(run_dir) / "predictions.csv") if picture_of(row) is not None
    ][:count]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(4.2 * COLUMNS, 5 * rows), layout="constrained")
    for axes, row in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, shown, strict=False):
        axes.imshow(picture_of(row))
        lines = [("before", row.zero_shot_caption), ("after", row.caption), ("reference", row.references[0])]
        text = "\n".join(textwrap.fill(f"{name}: {said}", 44) for name, said in lines if said)
        axes.set_title(text, loc="left", fontsize=9, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def draw_words(run_dir: str | Path, image_id: str | None = None) -> Figure:
    """Where each word of a caption looked: the picture once per word, lit by the decoder's cross-attention.

    image_id: a picture of attention.json; None takes the first that is there.

    Raises:
        UserError: there is no such picture.
    """
    maps = read_attention(Path(run_dir) / "attention.json")
    rows = {row.image_id: row for row in read_predictions(Path(run_dir) / "predictions.csv")}
    known = [name for name in maps if name in rows and picture_of(rows[name]) is not None]
    name = image_id or next(iter(known), None)
    if name not in known or name is None:
        raise UserError(
            f"image_id={image_id!r} has no word map here; expected one of {', '.join(known[:5]) or 'none'}; choose one"
        )
    picture, entry = picture_of(rows[name]), maps[name]
    assert picture is not None
    height, width = picture.shape[:2]
    left, top, right, bottom = (
        share * side for share, side in zip(entry["region"], (width, height) * 2, strict=True)
    )
    words = entry["words"]
    columns = min(6, len(words))
    lines = -(-len(words) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.4 * lines), layout="constrained")
    for axes, word, heat in zip(
        figure.subplots(lines, columns, squeeze=False).flat, words, entry["heat"], strict=False
    ):
        grid = np.frombuffer(base64.b64decode(heat), np.uint8).reshape(entry["height"], entry["width"])
        axes.imshow(picture)
        axes.imshow(
            grid, cmap="inferno", alpha=0.6, extent=(left, right, bottom, top), interpolation="bilinear"
        )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_title(word, fontsize=10, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def picture_of(row: Prediction) -> np.ndarray | None:
    """uint8 (H,W,3), None where it cannot be read."""
    try:
        return load_image(row.path, row.box, row.span).permute(1, 2, 0).numpy()
    except (UnreadableImage, OSError, ValueError):
        return None
