"""Draw a run's figures with matplotlib: curves, weight histograms, captioned images, attention maps.

    python -m src.report.figures run_dir=<run> out=images/flickr

writes losses.png, encoder_weights.png and decoder_weights.png (from the run's TensorBoard files) and captions.png
(the test images whose CIDEr-D is best, middle and worst).
"""

import base64
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from src.report.cross_attention_maps import read_attention
from src.report.curves import SOFT, TUNED, draw_losses, save_png
from src.report.run_files import Prediction, read_history, read_predictions
from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.logging import visible

EPOCH_COLOURS = LinearSegmentedColormap.from_list("epochs", ["#ded4bd", TUNED])
MAX_WEIGHTS = 6  # histograms of the encoder or decoder: the largest weights, in the order of the model
BINS = np.linspace(0, 1, 81)
TAIL = 0.001  # fraction of the values outside a histogram's axis at either end
COLUMNS = 3  # images side by side
DEFAULTS = {"run_dir": None, "out": None}


def main(arguments: Sequence[str]) -> int:
    """Draw what the run folder has the files for and print the paths.

    Raises:
        UserError: an unknown argument, or a run folder with nothing to draw.
    """
    settings = parse_command(arguments, DEFAULTS)
    run_dir, out = Path(settings["run_dir"]), Path(settings["out"])
    if not run_dir.is_dir():
        raise UserError(f"run_dir={str(run_dir)!r} does not exist; expected a run folder; set run_dir=<run>")
    figures = {"losses": draw_losses(read_history(run_dir / "csv"))}
    figures |= {
        f"{stack}_weights": draw_weights(run_dir / "tensorboard", stack) for stack in ("encoder", "decoder")
    }
    if (run_dir / "predictions.csv").is_file():
        figures["captions"] = draw_extremes(read_predictions(run_dir / "predictions.csv"))
    written = [
        save_png(figure, out / f"{name}.png") for name, figure in figures.items() if figure is not None
    ]
    if not written:
        raise UserError(
            f"run_dir={str(run_dir)!r} has no csv/metrics.csv, tensorboard/ or predictions.csv; "
            "expected the folder of a finished run; set run_dir=<run>"
        )
    print(*written, sep="\n")
    return 0


def draw_weights(folder: Path, stack: str) -> Figure | None:
    """Draw histograms of the largest `weights/<stack>/...` over the epochs, from TensorBoard files; the last in front.

    stack: "encoder" or "decoder". Returns None where there are none.
    """
    if not folder.is_dir():
        return None
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(folder), {event_accumulator.HISTOGRAMS: 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["histograms"] if tag.startswith(f"weights/{stack}/")]
    # A resumed run logs a step again: the last one counts.
    logged = {tag: {event.step: event.histogram_value for event in events.Histograms(tag)} for tag in tags}
    largest = sorted(tags, key=lambda tag: -list(logged[tag].values())[-1].num)[:MAX_WEIGHTS]
    tags = [tag for tag in tags if tag in largest]
    if not tags:
        return None
    columns = min(COLUMNS, len(tags))
    rows = -(-len(tags) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.5), layout="constrained")
    figure.suptitle(f"{stack.capitalize()}: trained weights over the epochs", weight="bold")
    grid_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, tag, name in zip(grid_axes, tags, short_names(tags), strict=False):
        axes.set_title(name, fontsize=9)
        _draw_histograms(axes, logged[tag])
    for axes in grid_axes[len(tags) :]:
        axes.set_visible(False)
    return figure


def short_names(tags: Sequence[str]) -> list[str]:
    """Drop the leading name components that all tags have in common.

    Example: weights/decoder/h.11.mlp.c_fc.weight and .../h.11.attn.c_attn.weight -> mlp.c_fc.weight, ...
    """
    split = [re.split(r"[./]", tag) for tag in tags]
    shared = next(
        (i for i, names in enumerate(zip(*split, strict=False)) if len(set(names)) > 1), len(split[0]) - 2
    )
    return [".".join(names[shared:]) for names in split]


def _draw_histograms(axes: Axes, histograms: dict[int, Any]) -> None:
    """Draw one weight: a density per epoch (histograms: epoch -> TensorBoard's buckets), each shifted up."""
    cumulative = []
    for histogram in histograms.values():
        limits = np.clip([histogram.min, *histogram.bucket_limit], histogram.min, histogram.max)
        cumulative.append((limits, np.cumsum([0.0, *histogram.bucket]) / max(sum(histogram.bucket), 1.0)))
    ends = np.array([np.interp((TAIL, 1 - TAIL), fractions, limits) for limits, fractions in cumulative])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    edges = low + (high - low if high > low else 1.0) * BINS
    centres = (edges[:-1] + edges[1:]) / 2
    densities = [np.diff(np.interp(edges, *pair)) / np.diff(edges) for pair in cumulative]
    lift = 0.45 * max(density.max() for density in densities) or 1.0
    last = len(densities) - 1
    for index, density in enumerate(densities):
        bottom = (last - index) * lift
        colour = EPOCH_COLOURS(index / max(1, last))
        axes.fill_between(centres, bottom, bottom + density, color=colour, zorder=index, linewidth=0)
        axes.plot(centres, bottom + density, color="white", linewidth=0.8, zorder=index)
    shown = sorted({0, (last + 1) // 2, last})
    epochs = list(histograms)
    axes.set_yticks([(last - index) * lift for index in shown], [str(epochs[index]) for index in shown])
    axes.set_ylabel("epoch", color=SOFT)
    axes.tick_params(length=0, labelsize=8, colors=SOFT)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_captions(predictions: Sequence[Prediction], titles: Sequence[str] = ()) -> Figure:
    """Draw images with both captions and a reference below each; unreadable ones are skipped."""
    readable = [(row, pixels) for row in predictions if (pixels := row.pixels()) is not None]
    rows = max(1, -(-len(readable) // COLUMNS))
    figure = Figure(figsize=(4.2 * COLUMNS, 5 * rows), layout="constrained")
    grid_axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for index, (axes, (row, pixels)) in enumerate(zip(grid_axes, readable, strict=False)):
        axes.imshow(pixels)
        if titles:
            axes.set_title(titles[index], fontsize=10, color=SOFT)
        lines = {
            "before": row.zero_shot_caption,
            "after": row.caption,
            "reference": next(iter(row.references), ""),
        }
        colours = {"before": SOFT, "after": TUNED, "reference": "black"}
        down = -0.04
        for name, text in lines.items():
            if text:  # captions are no formulas, whatever dollar signs they hold
                wrapped = textwrap.fill(visible(f"{name}: {text}"), 46, max_lines=3, placeholder=" ...")
                axes.text(0, down, wrapped, transform=axes.transAxes, va="top", fontsize=9.5,
                          color=colours[name], parse_math=False)  # fmt: skip
                down -= 0.075 * (wrapped.count("\n") + 1) + 0.015
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def draw_extremes(predictions: Sequence[Prediction]) -> Figure | None:
    """Draw the readable images of best, middle and worst CIDEr-D; None without any."""
    scored = [row for row in predictions if "cider_d" in row.scores and row.pixels() is not None]
    ranked = sorted(scored, key=lambda row: -row.scores["cider_d"])
    if not ranked:
        return None
    ranks = {0: "best", len(ranked) // 2: "middle", len(ranked) - 1: "worst"}
    chosen = [ranked[index] for index in ranks]
    titles = [
        f"{rank} of {len(ranked)}: CIDEr-D {row.scores['cider_d']:.2f}"
        for rank, row in zip(ranks.values(), chosen, strict=True)
    ]
    return draw_captions(chosen, titles)


def draw_images(run_dir: str | Path, count: int = 6) -> Figure:
    """Draw the first `count` readable test images of a run."""
    rows = read_predictions(Path(run_dir) / "predictions.csv")
    return draw_captions([row for row in rows if row.pixels() is not None][:count])


def draw_attention(run_dir: str | Path, image_id: str | None = None) -> Figure:
    """Draw an image once per word of its caption with the decoder's cross-attention over it.

    image_id: an image of attention.json; None takes the first readable one.

    Raises:
        UserError: there is no such image.
    """
    maps = read_attention(Path(run_dir) / "attention.json")
    rows = {row.image_id: row for row in read_predictions(Path(run_dir) / "predictions.csv")}
    names = [image_id] if image_id else list(maps)
    found = ((maps[name], rows[name].pixels()) for name in names if name in maps and name in rows)
    entry, pixels = next(((entry, pixels) for entry, pixels in found if pixels is not None), ({}, None))
    if pixels is None:
        known = ", ".join(list(maps)[:5]) or "none"
        raise UserError(f"image_id={image_id!r} has no attention map; expected one of {known}; choose one")
    height, width = pixels.shape[:2]
    left, top, right, bottom = np.array(entry["region"]) * (width, height, width, height)
    columns = min(6, len(entry["words"]))
    rows_needed = -(-len(entry["words"]) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.4 * rows_needed), layout="constrained")
    grid_axes = figure.subplots(rows_needed, columns, squeeze=False).flat
    for axes, word, heat in zip(grid_axes, entry["words"], entry["heat"], strict=False):
        grid = np.frombuffer(base64.b64decode(heat), np.uint8).reshape(entry["height"], entry["width"])
        axes.imshow(pixels)
        axes.imshow(
            grid, cmap="inferno", alpha=0.6, extent=(left, right, bottom, top), interpolation="bilinear"
        )
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_title(word, fontsize=10, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
