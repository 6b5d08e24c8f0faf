"""Draw curves over optimizer steps with matplotlib, as PNG files and as SVG inside the report."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.report.run_files import TRAIN_LOSS, VAL_LOSS, History, Point, curve, read_history
from src.utils.files import atomic_write

TUNED, TRAIN, SOFT, LINE = "#0f766e", "#c2a878", "#5c6068", "#dfdcd5"
THEME = {
    TUNED: "var(--tuned)",
    TRAIN: "var(--train)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
}  # of report.css


def write_losses(run_dir: Path) -> Path | None:
    """Draw losses.png into the run folder from its csv log; None where no loss was logged.

    Raises:
        OSError: the file cannot be written.
    """
    figure = draw_losses(read_history(Path(run_dir) / "csv"))
    return None if figure is None else save_png(figure, Path(run_dir) / "losses.png")


def draw_losses(history: History, size: tuple[float, float] = (8, 4)) -> Figure | None:
    """Draw training and validation loss over optimizer steps; size in inches; None without any."""
    train, val = curve(history, TRAIN_LOSS), curve(history, VAL_LOSS)
    return draw_curves("loss, nats per token", train, val, size, min) if train or val else None


def draw_scores(history: History, size: tuple[float, float] = (8, 3)) -> Figure | None:
    """Draw CIDEr-D on validation images over optimizer steps; None where it was not computed."""
    val = curve(history, ("val/cider_d",))
    return draw_curves("CIDEr-D", [], val, size, max) if val else None


def draw_curves(
    label: str, train: Sequence[Point], val: Sequence[Point], size: tuple[float, float], best: Any
) -> Figure:
    """Draw curves of (step, value) and mark the validation point that is `best`: `min` or `max`."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    if train:
        axes.plot(*zip(*train, strict=True), color=TRAIN, linewidth=1.2, label="training", clip_on=False)
    if val:
        marker = "o" if len(val) <= 60 else ""
        axes.plot(*zip(*val, strict=True), color=TUNED, linewidth=2, marker=marker, ms=4, label="validation",
                  clip_on=False)  # fmt: skip
        step, value = best(val, key=lambda point: point[1])
        axes.plot(step, value, "o", ms=11, mfc="none", color=TUNED, clip_on=False)
        axes.annotate(f"best {value:.3f}", (step, value), xytext=(0, 12), textcoords="offset points",
                      ha="center", weight="bold", color=SOFT)  # fmt: skip
    axes.set_xlabel("optimizer step", color=SOFT)
    axes.set_ylabel(label, color=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.margins(x=0.03, y=0.14)
    axes.grid(axis="y", color=LINE, clip_on=False)
    axes.tick_params(colors=SOFT, color=LINE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.legend(frameon=False, labelcolor=SOFT)
    return figure


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, the same bytes for equal drawings."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    with atomic_write(path, "wb") as file:
        file.write(buffer.getvalue())
    return path


def inline_svg(figure: Figure, label: str, css_class: str) -> str:
    """Return a figure as an SVG element for a page whose policy allows no inline styles, in the page's colours."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt makes ids unique within the page and equal for equal runs.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{label} {css_class}"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)  # of groups: the same in every figure
    svg = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), svg)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    head = f'<svg class="{css_class}" {view_box[0]} role="img" aria-label="{label}">'
    return head + svg[svg.index(">") + 1 :]


def _attributes(style: str) -> str:
    """Turn `fill: none; font: 10px x` into presentation attributes; fonts are the page's."""
    declarations = (declaration.partition(":")[::2] for declaration in style.split(";"))
    pairs = ((name.strip(), value.strip()) for name, value in declarations)
    return "".join(f' {name}="{value}"' for name, value in pairs if name and not name.startswith("font"))
