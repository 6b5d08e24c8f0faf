"""images/vit_gpt2_diagram.png: the model, what of it trains, and the two short cuts that training takes.

python -m src.report.diagram [out=images/vit_gpt2_diagram.png]
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from src.report.curves import save_png
from src.utils.errors import UserError

WIDTH, HEIGHT = 146, 74  # units of the drawing
INK, SOFT, FROZEN, TRAINED, DISK = "#1d1f23", "#5c6068", "#e6e2d8", "#0f766e", "#e9b45b"
TOP, LOW = 51, 17  # middle of the encoder's and the decoder's lane
CAPTIONS = (("a", "red", "house"), ("sun", "over", "a", "roof"), ("home", "on", "grass"))
HUES = ("#4f8fba", "#b5697b", "#8a9a4b")


def main(arguments: Sequence[str]) -> Path:
    """Draw the diagram to `out`.

    Raises:
        UserError: another argument than out.
    """
    settings = dict(argument.partition("=")[::2] for argument in arguments)
    if set(settings) - {"out"}:
        raise UserError(f"arguments={' '.join(arguments)!r}; expected at most out; write out=<file>.png")
    return save_png(draw(), Path(settings.get("out", "images/vit_gpt2_diagram.png")), dots_per_inch=120)


def draw() -> Figure:
    """The diagram: the encoder's lane above, the decoder's below, cross-attention between them."""
    figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    _encoder(axes)
    _decoder(axes)
    _cross_attention(axes)
    _legend(axes)
    return figure


def _encoder(axes: Axes) -> None:
    _say(axes, 4, 69, "ViT encoder", 15, weight="bold", ha="left")
    _picture(axes, 4, TOP - 8, 16)
    _say(axes, 12, TOP - 11, "image", 11, SOFT)
    _arrow(axes, (21, TOP), (25, TOP))
    for row in range(5):
        for column in range(2):
            hue = ("#cfe3ee", "#9cc48a", "#d98c5f")[(row + column) % 3]
            axes.add_patch(Rectangle((26 + 3 * column, TOP - 7.4 + 3 * row), 2.6, 2.6, color=hue))
    _say(axes, 29, TOP - 11, "196 patches\n+ class token", 11, SOFT)
    _arrow(axes, (33, TOP), (37, TOP))
    _blocks(axes, 38, TOP, 24, "blocks 1 – 11", "frozen: the backbone", trained=False)
    _arrow(axes, (64, TOP), (69, TOP))
    _disk(axes, 74, TOP)
    _say(axes, 74, TOP - 11, "feature cache: computed\nonce, read every epoch", 11, SOFT)
    _arrow(axes, (79, TOP), (84, TOP))
    _blocks(axes, 85, TOP, 17, "block 12", "7,087,872 weights", trained=True)
    _arrow(axes, (103, TOP), (108, TOP))
    for place in range(9):
        axes.add_patch(Rectangle((109, TOP - 7.6 + 1.75 * place), 13, 1.2, color="#9fc9c4"))
    _say(axes, 115.5, TOP + 10.4, "image states, 197 × 768", 11, SOFT)


def _decoder(axes: Axes) -> None:
    _say(axes, 4, 33, "GPT-2 decoder", 15, weight="bold", ha="left")
    left = 4.0
    for words, hue in zip(CAPTIONS, HUES, strict=True):
        for place, word in enumerate(("▸", *words)):
            width = 2.4 if word == "▸" else 1.3 + 0.9 * len(word)
            _tile(axes, left, LOW + 3.4, width, word, hue, faint=not place)
            left += width + 0.3
        left += 0.5
    _say(
        axes,
        4,
        LOW + 0.6,
        "all captions of an image in one row, each with its own start ▸",
        11,
        SOFT,
        ha="left",
    )
    _mask(axes, 4, LOW - 12.6, 11)
    _say(
        axes, 17, LOW - 7, "a word sees the earlier words\nof its own caption, no others", 11, SOFT, ha="left"
    )
    _arrow(axes, (left + 0.3, LOW), (left + 4.3, LOW))
    start = left + 5.3
    _blocks(axes, start, LOW, 24, "blocks 1 – 11", "frozen", trained=False)
    _arrow(axes, (start + 26, LOW), (start + 30, LOW))
    _blocks(axes, start + 31, LOW, 17, "block 12", "9,451,776 weights", trained=True)
    _arrow(axes, (start + 49, LOW), (start + 53, LOW))
    _box(axes, start + 54, LOW, 11, 11, FROZEN)
    _say(axes, start + 59.5, LOW, "word\nscores", 12)
    _arrow(axes, (start + 66, LOW), (start + 70, LOW))
    for place, word in enumerate((*CAPTIONS[0], "■")):
        _tile(axes, start + 71, LOW + 4.4 - 4.0 * place, 6.4, word, HUES[0])
    _say(axes, start + 74.2, LOW - 13, "next words,\n■ ends", 11, SOFT)


def _cross_attention(axes: Axes) -> None:
    """From the image states down into both groups of the decoder's blocks."""
    first, last, across, bottom = 70.5, 101.5, 33.5, LOW + 8.4
    axes.plot([115.5, 115.5, first], [TOP - 8.6, across, across], color=TRAINED, linewidth=1.8)
    for x in (first, last):
        _arrow(axes, (x, across), (x, bottom), TRAINED)
    words = "cross-attention in every block; keys and values once per image"
    _say(axes, 113, across + 1.9, words, 11, TRAINED, ha="right")


def _legend(axes: Axes) -> None:
    for x, colour, text in ((92, TRAINED, "trained"), (109, FROZEN, "frozen"), (125, DISK, "kept on disk")):
        _box(axes, x, 69, 3, 2.6, colour)
        _say(axes, x + 4.2, 69, text, 12, ha="left")


def _blocks(axes: Axes, x: float, y: float, width: float, title: str, below: str, trained: bool) -> None:
    """A stack of transformer blocks: three cards for several, one for a single block."""
    for shift in (0,) if trained else (1.4, 0.7, 0):
        _box(axes, x + shift, y + shift, width, 15, TRAINED if trained else FROZEN)
    _say(axes, x + width / 2, y + 1.8, title, 14, "white" if trained else INK, weight="bold")
    _say(axes, x + width / 2, y - 2.6, below, 11, "white" if trained else SOFT)


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    """A rounded box whose left edge is at x and whose middle is at y."""
    style = f"round,pad=0,rounding_size={min(1.2, height / 4)}"
    axes.add_patch(
        FancyBboxPatch(
            (x, y - height / 2), width, height, boxstyle=style, facecolor=colour, edgecolor="white", lw=1.4
        )
    )


def _tile(axes: Axes, x: float, y: float, width: float, word: str, hue: str, faint: bool = False) -> None:
    axes.add_patch(Rectangle((x, y), width, 3.2, facecolor=hue, alpha=0.55 if faint else 1.0))
    _say(axes, x + width / 2, y + 1.5, word, 10, "white")


def _picture(axes: Axes, x: float, y: float, side: float) -> None:
    """A scene, cut into patches."""
    axes.add_patch(Rectangle((x, y), side, side, color="#cfe3ee"))
    axes.add_patch(Rectangle((x, y), side, side * 0.4, color="#9cc48a"))
    axes.add_patch(Ellipse((x + 12.4, y + 12.6), 3, 3, color="#f2c14e"))
    axes.add_patch(Rectangle((x + 3, y + 4), 6, 5, color="#d98c5f"))
    axes.add_patch(Polygon([(x + 2.4, y + 9), (x + 9.6, y + 9), (x + 6, y + 12.4)], color="#a2543a"))
    for line in range(1, 4):
        axes.plot([x + line * side / 4] * 2, [y, y + side], color="white", linewidth=1.2)
        axes.plot([x, x + side], [y + line * side / 4] * 2, color="white", linewidth=1.2)


def _disk(axes: Axes, x: float, y: float) -> None:
    axes.add_patch(Rectangle((x - 4, y - 5), 8, 10, facecolor=DISK))
    for height, shade in ((y - 5, DISK), (y + 5, "#f3cf8f")):
        axes.add_patch(Ellipse((x, height), 8, 3, facecolor=shade, edgecolor="white", lw=1))


def _mask(axes: Axes, x: float, y: float, side: float) -> None:
    """The packing mask: a triangle on the diagonal for each caption."""
    axes.add_patch(Rectangle((x, y), side, side, facecolor="#f1efe9"))
    cell, start = side / sum(len(words) + 1 for words in CAPTIONS), 0
    for words, hue in zip(CAPTIONS, HUES, strict=True):
        for row in range(len(words) + 1):
            corner = (x + start * cell, y + side - (start + row + 1) * cell)
            axes.add_patch(Rectangle(corner, (row + 1) * cell, cell, facecolor=hue))
        start += len(words) + 1


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = SOFT) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=14, color=colour, lw=1.8, shrinkA=0, shrinkB=0
        )
    )


def _say(axes: Axes, x: float, y: float, text: str, size: float, colour: str = INK, **kwargs: Any) -> None:
    axes.text(x, y, text, fontsize=size, color=colour, va="center", **{"ha": "center"} | kwargs)


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(str(error))
