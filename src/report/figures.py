"""Draw a run's figures with matplotlib: curves, weight histograms, captioned images, attention maps.

    python -m src.report.figures run_dir=<run> out=images/flickr

writes losses.png, encoder_weights.png and decoder_weights.png (from the run's TensorBoard files) and captions.png
(the test images whose CIDEr-D is best, middle and worst).
"""

import base64
import io
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.report.run_files import (
    CURVES,
    History,
    Prediction,
    curve,
    read_attention,
    read_history,
    read_predictions,
    tidy,
)
from src.report.scores import number
from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import visible

TUNED, TRAIN, SOFT, LINE = "#2b5fa5", "#c2a878", "#5c6068", "#dfdcd5"
EPOCH_COLOURS = LinearSegmentedColormap.from_list("epochs", ["#ded4bd", TUNED])
MAX_WEIGHTS = 6  # histograms of the encoder or decoder: the largest weights, in the order of the model
BINS = np.linspace(0, 1, 81)
TAILS = (0.001, 0.999)  # quantiles of the values at the ends of a histogram's axis
COLUMNS = 3  # images side by side


def main(arguments: Sequence[str]) -> None:
    """Draw what the run folder has the files for and print the paths; a UserError where it has none."""
    settings = parse_command(arguments, {"run_dir": None, "out": None})
    run_dir, out = Path(settings["run_dir"]), Path(settings["out"])
    figures = {"losses": draw_curves(read_history(run_dir / "csv"), "loss")}
    for stack in ("encoder", "decoder"):
        figures[f"{stack}_weights"] = draw_weights(run_dir / "tensorboard", stack)
    if (run_dir / "predictions.csv").is_file():
        figures["captions"] = draw_extremes(read_predictions(run_dir / "predictions.csv"))
    written = [save_png(figure, out / f"{name}.png") for name, figure in figures.items() if figure]
    if not written:
        raise UserError(f"run_dir={str(run_dir)!r} has nothing to draw; expected a finished run; set run_dir=<run>")
    print(*written, sep="\n")


def write_losses(run_dir: Path) -> Path | None:
    """Draw losses.png into the run folder from its csv log; None where no loss was logged."""
    figure = draw_curves(read_history(run_dir / "csv"), "loss")
    return save_png(figure, run_dir / "losses.png") if figure else None


def draw_curves(history: History, name: str, size: tuple[float, float] = (8, 4), min_points: int = 1) -> Figure | None:
    """Draw the curves of `name` in CURVES over optimizer steps and mark the best validation point.

    size: inches. Returns None where no curve has min_points.
    """
    label, best, train_names, val_names = CURVES[name]
    train, val = curve(history, train_names), curve(history, val_names)
    train = [] if any(value < 0 for _, value in train) else train  # of self-critical training: no cross-entropy
    if max(len(train), len(val)) < min_points:
        return None
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    if train:
        axes.plot(*zip(*train, strict=True), color=TRAIN, linewidth=1.2, label="training", clip_on=False)
    if val:
        style: dict[str, Any] = {"color": TUNED, "clip_on": False}
        marker = "o" if len(val) <= 60 else ""
        axes.plot(*zip(*val, strict=True), label="validation", linewidth=2, marker=marker, ms=4, **style)
        step, value = best(val, key=lambda point: point[1])
        axes.plot(step, value, "o", ms=11, mfc="none", **style)
        above: dict[str, Any] = {"xytext": (0, 12), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"best {number(value)}", (step, value), weight="bold", color=SOFT, **above)
    axes.set_xlabel("optimizer step", color=SOFT)
    axes.set_ylabel(label, color=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.margins(x=0.03, y=0.14)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=LINE, clip_on=False)
    axes.tick_params(colors=SOFT, color=LINE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.legend(frameon=False, labelcolor=SOFT)
    return figure


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, the same bytes for equal drawings."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return path


def svg_uri(figure: Figure) -> str:
    """Return a figure as the data URI of an SVG without a background, the same for equal drawings."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "captioner"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def draw_weights(folder: Path, stack: str) -> Figure | None:
    """Draw histograms of the largest `weights/<stack>/...` over the epochs, from TensorBoard files; the last in front.

    stack: "encoder" or "decoder". Returns None where there are none.
    """
    if not folder.is_dir():
        return None
    from tensorboard.backend.event_processing.event_accumulator import HISTOGRAMS, EventAccumulator

    events = EventAccumulator(str(folder), {HISTOGRAMS: 0}).Reload()
    tags = [tag for tag in events.Tags()["histograms"] if tag.startswith(f"weights/{stack}/")]
    # A resumed run logs a step again: the last one counts.
    logged = {tag: {event.step: event.histogram_value for event in events.Histograms(tag)} for tag in tags}
    largest = sorted(tags, key=lambda tag: -list(logged[tag].values())[-1].num)[:MAX_WEIGHTS]
    tags = [tag for tag in tags if tag in largest]
    if not tags:
        return None
    figure, grid = _grid(len(tags), COLUMNS, (3.6, 3.15))
    figure.suptitle(f"{stack.capitalize()}: trained weights over the epochs", weight="bold")
    for axes, tag in zip(grid, tags, strict=True):
        axes.set_title(tag.rpartition("/")[2], fontsize=9)
        _draw_histograms(axes, logged[tag])
    return figure


def _grid(count: int, max_columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    columns = max(1, min(max_columns, count))
    rows = math.ceil(count / columns) or 1
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def _draw_histograms(axes: Axes, histograms: dict[int, Any]) -> None:
    cumulative = []  # fraction of the values below each bucket's limit, per epoch
    for one in histograms.values():
        limits = np.clip([one.min, *one.bucket_limit], one.min, one.max)
        cumulative.append((limits, np.cumsum([0.0, *one.bucket]) / max(sum(one.bucket), 1.0)))
    ends = np.array([np.interp(TAILS, fractions, limits) for limits, fractions in cumulative])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    edges = low + (high - low if high > low else 1.0) * BINS
    centres = (edges[:-1] + edges[1:]) / 2
    densities = [np.diff(np.interp(edges, *pair)) / np.diff(edges) for pair in cumulative]
    lift = 0.45 * max(density.max() for density in densities) or 1.0
    last = len(densities) - 1
    for index, density in enumerate(densities):
        bottom, colour = (last - index) * lift, EPOCH_COLOURS(index / max(1, last))
        axes.fill_between(centres, bottom, bottom + density, color=colour, zorder=index, linewidth=0)
        axes.plot(centres, bottom + density, color="white", linewidth=0.8, zorder=index)
    epochs, labelled = list(histograms), sorted({0, (last + 1) // 2, last})
    axes.set_yticks([(last - index) * lift for index in labelled], [str(epochs[index]) for index in labelled])
    axes.set_ylabel("epoch", color=SOFT)
    axes.tick_params(length=0, labelsize=8, colors=SOFT)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_captions(predictions: Sequence[Prediction], titles: Sequence[str] = ()) -> Figure:
    """Draw readable images with both captions and a reference below each."""
    figure, grid = _grid(len(predictions), COLUMNS, (4.2, 5))
    for index, (axes, row) in enumerate(zip(grid, predictions, strict=True)):
        axes.imshow(row.pixels())  # type: ignore[arg-type]
        axes.set_axis_off()
        axes.set_title(titles[index] if titles else "", fontsize=10, color=SOFT)
        reference = next(iter(row.references), "")
        captions = {"base": row.zero_shot_caption, "fine-tuned": row.caption, "reference": reference}
        style: dict[str, Any] = {"va": "top", "fontsize": 9.5, "parse_math": False}  # captions are no formulas
        down = -0.04
        for (name, text), colour in zip(captions.items(), (SOFT, TUNED, "black"), strict=True):
            if text:
                wrapped = textwrap.fill(visible(f"{name}: {tidy(text)}"), 46, max_lines=3, placeholder=" ...")
                axes.text(0, down, wrapped, transform=axes.transAxes, color=colour, **style)
                down -= 0.075 * (wrapped.count("\n") + 1) + 0.015
    return figure


def draw_extremes(predictions: Sequence[Prediction]) -> Figure | None:
    """Draw the readable images of best, middle and worst CIDEr-D; None without any."""
    scored = [row for row in predictions if "cider_d" in row.scores and row.pixels() is not None]
    ranked = sorted(scored, key=lambda row: -row.scores["cider_d"])
    if not ranked:
        return None
    chosen = {0: "best", len(ranked) // 2: "middle", len(ranked) - 1: "worst"}
    scores = [number(ranked[index].scores["cider_d"]) for index in chosen]
    titles = [f"{rank} of {len(ranked)}: CIDEr-D {score}" for rank, score in zip(chosen.values(), scores, strict=True)]
    return draw_captions([ranked[index] for index in chosen], titles)


def draw_images(run_dir: str | Path, count: int = 6) -> Figure:
    """Draw the first `count` readable test images of a run."""
    rows = read_predictions(Path(run_dir) / "predictions.csv")
    return draw_captions([row for row in rows if row.pixels() is not None][:count])


def draw_attention(run_dir: str | Path, image_id: str | None = None) -> Figure:
    """Draw an image once per word of its caption with the decoder's cross-attention over it.

    image_id: an image of attention.json, else a UserError; None takes the first readable one.
    """
    maps = read_attention(Path(run_dir) / "attention.json")
    rows = {row.image_id: row for row in read_predictions(Path(run_dir) / "predictions.csv")}
    readable = (name for name in maps if image_id in (None, name) and name in rows and rows[name].pixels() is not None)
    name = next(readable, None)
    if name is None:
        known = ", ".join(list(maps)[:5])
        raise UserError(f"image_id={image_id!r} has no attention map; expected one of {known}; choose one")
    entry, pixels = maps[name], rows[name].pixels()
    height, width = pixels.shape[:2]  # type: ignore[union-attr]
    left, top, right, bottom = np.array(entry["region"]) * (width, height, width, height)
    figure, grid = _grid(len(entry["words"]), 6, (2.1, 2.4))
    for axes, word, encoded in zip(grid, entry["words"], entry["heat"], strict=True):
        heat = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(entry["height"], entry["width"])
        axes.imshow(pixels)  # type: ignore[arg-type]
        axes.imshow(heat, cmap="inferno", alpha=0.6, extent=(left, right, bottom, top), interpolation="bilinear")
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        axes.set_title(word, fontsize=10, parse_math=False)
    return figure


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
