"""losses.png: training and validation loss of a run."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from src.report.history import TRAIN_LOSS, VAL_LOSS, curve, read_history, thinned
from src.utils.files import atomic_write

TRAIN_COLOUR, VAL_COLOUR, SOFT = "#c2a878", "#0f766e", "#5c6068"
MOST_POINTS = 400


def write_losses(run_dir: Path, path: Path | None = None) -> Path | None:
    """Draw losses.png into the run folder (or to `path`) from the csv log; None where no loss was logged.

    Raises:
        OSError: the file cannot be written.
    """
    figure = draw_losses(read_history(Path(run_dir) / "csv"))
    return None if figure is None else save_png(figure, path or Path(run_dir) / "losses.png")


def draw_losses(history: list[dict[str, float]]) -> Figure | None:
    """Loss in nats per token over optimizer steps, the best validation marked."""
    train, val = thinned(curve(history, TRAIN_LOSS), MOST_POINTS), curve(history, VAL_LOSS)
    if not train and not val:
        return None
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    if train:
        axes.plot(*zip(*train, strict=True), color=TRAIN_COLOUR, linewidth=1.2, label="training")
    if val:
        axes.plot(
            *zip(*val, strict=True), color=VAL_COLOUR, linewidth=2, marker="o", ms=4, label="validation"
        )
        step, best = min(val, key=lambda point: point[1])
        axes.plot(step, best, "o", ms=11, mfc="none", color=VAL_COLOUR)
        axes.annotate(
            f"best {best:.3f}", (step, best), xytext=(0, 12), textcoords="offset points",
            ha="center", weight="bold",
        )  # fmt: skip
    axes.set(xlabel="optimizer step", ylabel="loss, nats per token")
    axes.margins(x=0.02, y=0.12)
    axes.grid(axis="y", alpha=0.35)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def save_png(figure: Figure, path: Path, dots_per_inch: int = 150) -> Path:
    """Write a figure as PNG, whole or not at all, with nothing in it that changes between equal drawings."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    with atomic_write(path, "wb") as file:
        file.write(buffer.getvalue())
    return path
