"""MedICaT's `subcaptions_public.jsonl`: where the panels of compound figures lie and what is said of each.

A row has `pdf_hash`, `fig_uri`, `answer`, `width` and `height` in pixels, the caption as `text` and as
`tokens` ({"text", "start", "end"}), `subfigures` ({"label", "points": [[x, y], ...]}; also met as `spans`)
and `subcaptions` (label -> indices of tokens).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.datamodule.caption_table import SkippedRow
from src.datamodule.readers.encodings import clean_caption, printable, stream_lines

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Subfigure:
    """A panel: box (left, top, right, bottom) in pixels, caption, and the letter that names it."""

    box: Box
    caption: str
    panel: str


@dataclass
class Subfigures:
    """Panels by figure ("{pdf_hash}_{fig_uri}"), in file order, and the rows that gave none.

    excluded: rows that the annotators did not accept, and panels of which the caption says nothing.
    """

    of_figure: dict[str, list[Subfigure]] = field(default_factory=dict)
    skipped: list[SkippedRow] = field(default_factory=list)
    rows_read: int = 0
    excluded: dict[str, int] = field(default_factory=dict)


def parse_row(line: str) -> dict[str, Any] | None:
    """A line of a jsonl as a mapping with the texts `pdf_hash` and `fig_uri`, None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("pdf_hash"), str):
        return None
    return row if row["pdf_hash"] and isinstance(row.get("fig_uri"), str) else None


def read_subfigures(path: Path) -> Subfigures:
    """Read the panels of all accepted figures.

    Raises:
        UserError: the file cannot be read.
    """
    result = Subfigures()
    for number, line in enumerate(stream_lines(path), 1):
        if not line.strip():
            continue
        result.rows_read += 1
        row = parse_row(line)
        if row is None:
            result.skipped.append(
                SkippedRow(number, "", "malformed line", f"{path.name}: {printable(line, 80)}")
            )
        elif row.get("answer") != "accept":
            _count(result.excluded, "subfigures not accepted")
        else:
            _read_figure(number, row, path.name, result)
    return result


def _read_figure(number: int, row: Mapping[str, Any], source: str, result: Subfigures) -> None:
    figure = f"{row['pdf_hash']}_{row['fig_uri']}"
    captions = row.get("subcaptions")
    panels = row.get("subfigures") or row.get("spans")
    for panel in panels if isinstance(panels, list) else []:
        label = panel.get("label") if isinstance(panel, dict) else None
        box = _box(panel.get("points"), row) if isinstance(panel, dict) else None
        if box is None:
            detail = f"{source}: {printable(str(panel), 80)}"
            result.skipped.append(SkippedRow(number, printable(figure), "malformed box", detail))
            continue
        indices = captions.get(label) if isinstance(captions, dict) and isinstance(label, str) else None
        caption = _text(indices, row)
        if caption:
            result.of_figure.setdefault(figure, []).append(Subfigure(box, caption, str(label)))
        else:
            _count(result.excluded, "subfigures without a subcaption")


def _box(points: Any, row: Mapping[str, Any]) -> Box | None:
    """The upright box around a polygon, within the picture where its size is told; None where it is empty.

    Example: [[10.2, 5], [50, 5], [50, 40.1], [10.2, 40.1]] gives (10, 5, 50, 41).
    """
    try:
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
        box = (math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys)))
    except (TypeError, ValueError, OverflowError):  # no pairs, no numbers, none at all, nan, infinite
        return None
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], _size(row, "width")), min(box[3], _size(row, "height"))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _size(row: Mapping[str, Any], key: str) -> int:
    size = row.get(key)
    return int(size) if isinstance(size, (int, float)) and 0 < size < 1_000_000 else 1_000_000


def _text(indices: Any, row: Mapping[str, Any]) -> str:
    """The words of a subcaption: runs of neighbouring tokens as the caption has them, joined by a blank."""
    if isinstance(indices, str):
        return clean_caption(indices)
    tokens, text = row.get("tokens"), row.get("text")
    if not isinstance(indices, list) or not isinstance(tokens, list):
        return ""
    words, end_before = "", None
    for index in sorted({index for index in indices if isinstance(index, int) and 0 <= index < len(tokens)}):
        token = tokens[index] if isinstance(tokens[index], dict) else {"text": tokens[index]}
        start, end = token.get("start"), token.get("end")
        placed = isinstance(text, str) and isinstance(start, int) and isinstance(end, int)
        word = text[start:end] if placed and isinstance(text, str) else str(token.get("text", ""))
        glued = placed and start == end_before
        words = f"{words}{word}" if glued else f"{words} {word}"
        end_before = end if placed else None
    return clean_caption(words)


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1
