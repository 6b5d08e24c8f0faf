"""The README's figures of a run, by one command:

    python -m src.report.figures run_dir=<run> out=images/flickr

losses.png, encoder_weights.png and decoder_weights.png (from the run's TensorBoard files), captions.png (the
test pictures whose CIDEr-D is best, middle and worst).
"""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.datamodule.images.decode import UnreadableImage, load_image
from src.report.curves import SOFT, VAL_COLOUR, save_png, write_losses
from src.report.histograms import Ridge, read_ridges
from src.report.printable import printable
from src.report.run_files import Prediction, read_predictions
from src.utils.errors import UserError

USAGE = "python -m src.report.figures run_dir=<run> out=<folder>"


def main(arguments: Sequence[str]) -> list[Path]:
    """Draw what the run folder has the files for; returns the pictures written.

    Raises:
        UserError: another argument than run_dir and out, or a run folder with nothing to draw.
    """
    settings = dict(argument.partition("=")[::2] for argument in arguments)
    if set(settings) != {"run_dir", "out"}:
        raise UserError(f"arguments={' '.join(arguments)!r}; expected run_dir and out; write {USAGE}")
    run_dir, out = Path(settings["run_dir"]), Path(settings["out"])
    if not run_dir.is_dir():
        raise UserError(f"run_dir={str(run_dir)!r} does not exist; expected a run folder; write {USAGE}")
    written = [write_losses(run_dir, out / "losses.png")]
    for half in ("encoder", "decoder"):
        if ridges := read_ridges(run_dir / "tensorboard", half):
            written.append(save_png(draw_ridges(ridges, half), out / f"{half}_weights.png"))
    if (run_dir / "predictions.csv").is_file() and (
        figure := draw_captions(read_predictions(run_dir / "predictions.csv"))
    ):
        written.append(save_png(figure, out / "captions.png"))
    found = [path for path in written if path is not None]
    if not found:
        raise UserError(
            f"run_dir={str(run_dir)!r} has no csv/metrics.csv, tensorboard/ or predictions.csv; "
            f"expected the folder of a finished run; write {USAGE}"
        )
    return found


def draw_ridges(ridges: Sequence[Ridge], half: str) -> Figure:
    """Histograms of each weight over the epochs, the first at the back, the last in front."""
    columns = min(3, len(ridges))
    rows = -(-len(ridges) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.5), layout="constrained")
    figure.suptitle(f"{half.capitalize()}: trained weights over the epochs", weight="bold")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for place, ridge in zip(axes, ridges, strict=False):
        _draw_ridge(place, ridge)
    for place in axes[len(ridges) :]:
        place.set_visible(False)
    return figure


def _draw_ridge(axes: Axes, ridge: Ridge) -> None:
    lift = 0.45 * max(max(density) for density in ridge.densities) or 1.0
    total = len(ridge.epochs)
    for order, density in enumerate(ridge.densities):
        base = (total - 1 - order) * lift
        share = order / max(1, total - 1)
        face = tuple((1 - share) * light + share * dark for light, dark in zip(_LIGHT, _DARK, strict=True))
        upper = [base + value for value in density]
        axes.fill_between(ridge.centres, base, upper, color=face, zorder=order, linewidth=0)
        axes.plot(ridge.centres, upper, color="white", linewidth=0.8, zorder=order)
    shown = sorted({0, total // 2, total - 1})
    axes.set_yticks([(total - 1 - order) * lift for order in shown], [f"{ridge.epochs[o]}" for o in shown])
    axes.set_title(ridge.name, fontsize=9)
    axes.set_ylabel("epoch", color=SOFT)
    axes.tick_params(length=0, labelsize=8, colors=SOFT)
    axes.spines[["top", "right", "left"]].set_visible(False)


_LIGHT, _DARK = (0.87, 0.83, 0.74), (0.06, 0.46, 0.43)


def draw_captions(predictions: Sequence[Prediction]) -> Figure | None:
    """The pictures of best, middle and worst CIDEr-D with both captions; None without readable pictures."""
    ranked = sorted(
        (row for row in predictions if "cider_d" in row.scores and _picture(row) is not None),
        key=lambda row: -row.scores["cider_d"],
    )
    if not ranked:
        return None
    places = {0: "best", len(ranked) // 2: "middle", len(ranked) - 1: "worst"}
    figure = Figure(figsize=(4 * len(places), 4.6), layout="constrained")
    columns = figure.subplots(1, len(places), squeeze=False)[0]
    for axes, (index, place) in zip(columns, places.items(), strict=True):
        row = ranked[index]
        axes.imshow(_picture(row))
        axes.set_axis_off()
        axes.set_title(
            f"{place} of {len(ranked)}: CIDEr-D {row.scores['cider_d']:.2f}", fontsize=10, color=SOFT
        )
        _write(axes, [("before", row.zero_shot_caption, SOFT), ("after", row.caption, VAL_COLOUR),
                      ("reference", next(iter(row.references), None), "black")])  # fmt: skip
    return figure


def _write(axes: Axes, lines: Sequence[tuple[str, str | None, str]]) -> None:
    """Put lines of text under a picture; captions are no formulas, whatever dollars they hold."""
    down = -0.04
    for name, text, colour in lines:
        if text is not None:
            wrapped = textwrap.fill(printable(f"{name}: {text}"), 46, max_lines=3, placeholder=" ...")
            axes.text(0, down, wrapped, transform=axes.transAxes, va="top", fontsize=9.5, color=colour,
                      parse_math=False)  # fmt: skip
            down -= 0.075 * (wrapped.count("\n") + 1) + 0.015


def _picture(row: Prediction) -> np.ndarray | None:
    """uint8 (H,W,3)."""
    try:
        return load_image(row.path, row.box, row.span).permute(1, 2, 0).numpy()
    except (UnreadableImage, OSError, ValueError):
        return None


if __name__ == "__main__":
    try:
        print(*main(sys.argv[1:]), sep="\n")
    except UserError as error:
        sys.exit(str(error))
