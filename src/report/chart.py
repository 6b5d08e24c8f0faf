"""Line charts as numbers that a template draws: what is where, in the units of the drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from src.report.history import TRAIN_LOSS, VAL_LOSS, Point, curve, thinned

MOST_POINTS = 240  # of a line: more than a screen tells apart
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 40  # margins, for the axes' labels


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: its name, the class of its colour, an SVG path, and its dots as (x, y, what it says)."""

    name: str
    style: str
    path: str
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `width` x `height` units; ticks are (place, label)."""

    title: str
    width: int
    height: int
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    best: tuple[float, float, str] | None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the area between the axes."""
        return LEFT, TOP, self.width - RIGHT, self.height - BOTTOM


def loss_charts(history: list[dict[str, float]]) -> list[Chart]:
    """Training and validation loss over optimizer steps, for a wide screen and a phone; [] without any."""
    train, val = thinned(curve(history, TRAIN_LOSS), MOST_POINTS), curve(history, VAL_LOSS)
    named = [("training", "train", train), ("validation", "val", val)]
    named = [(name, style, points) for name, style, points in named if points]
    return [draw("Loss, nats per token", named, size) for size in ((900, 340), (340, 280))] if named else []


def score_charts(history: list[dict[str, float]]) -> list[Chart]:
    """CIDEr-D on validation pictures over optimizer steps, as `loss_charts`; [] where it was not computed."""
    points = curve(history, ("val/cider_d",))
    named = [("validation", "val", points)]
    sizes = ((900, 240), (340, 220))
    return (
        [draw("CIDEr-D on validation pictures", named, size, lowest=False) for size in sizes]
        if points
        else []
    )


def draw(
    title: str, named: Sequence[tuple[str, str, list[Point]]], size: tuple[int, int], lowest: bool = True
) -> Chart:
    """Lay out curves (name, style, points) and mark the last one's best point, the lowest or highest."""
    width, height = size
    every = [point for _, _, points in named for point in points]
    x_range = _spread([0.0, *(x for x, _ in every)])
    y_range = _spread([y for _, y in every], 0.06)

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + (point[0] - x_range[0]) / (x_range[1] - x_range[0]) * (width - LEFT - RIGHT)
        y = height - BOTTOM - (point[1] - y_range[0]) / (y_range[1] - y_range[0]) * (height - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    lines = []
    for name, style, points in named:
        places = [place(point) for point in points]
        path = "M" + " L".join(f"{x} {y}" for x, y in places)
        says = [f"{name}, step {point[0]:.0f}: {point[1]:.3f}" for point in points]
        few = len(points) <= 60
        dots = [(*at, say) for at, say in zip(places, says, strict=True)] if style == "val" and few else []
        lines.append(Line(name, style, path, dots))
    last = named[-1][2]
    best = (min if lowest else max)(last, key=lambda point: point[1]) if named[-1][1] == "val" else None
    return Chart(
        title, width, height,
        [(place((tick, 0))[0], f"{tick:g}") for tick in ticks(*x_range, width // 80)],
        [(place((0, tick))[1], f"{tick:g}") for tick in ticks(*y_range, height // 50)],
        lines, (*place(best), f"{best[1]:.3f}") if best else None,
    )  # fmt: skip


def _spread(values: list[float], margin: float = 0.0) -> tuple[float, float]:
    """Lowest and highest with a margin, never equal."""
    low, high = min(values), max(values)
    room = (high - low) * margin if high > low else max(abs(high), 1.0) / 2
    return low - room, high + room


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within low..high, roughly `about` of them.

    Example: ticks(0.93, 3.4, 5) == [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]
