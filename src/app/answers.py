"""From an uploaded file to what the page shows: plain values, which the page's script puts in as text."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.datamodule.images.decode import UnreadableImage, decode_bytes
from src.report.attention import encode_attention
from src.report.printable import printable
from src.report.thumbnails import shrink

if TYPE_CHECKING:
    from torch import Tensor

    from src.captioner import Captioner

LONGEST_SIDE = 960  # pixels of the picture as it is shown
MOST_BYTES = 400_000
LONGEST_NAME = 80
MEGABYTE, MEGAPIXEL = 2**20, 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Of an uploaded picture: bytes of the file, and height times width in pixels."""

    max_bytes: int
    max_pixels: int


def answer(captioner: "Captioner", path: Path, name: str, limits: Limits) -> dict[str, Any]:
    """{"error": a line} where the picture cannot be used, else

    {"name", "seconds", "picture": {"uri", "width", "height"}, "alternatives": [{"caption", "nats", "map"}]},
    best first; nats per token; map as in attention.json, None where the model has no maps. `name` is the file's
    name on the visitor's machine.
    """
    name = printable(name)[-LONGEST_NAME:]
    try:
        picture = read_upload(path, name, limits)
    except UnreadableImage as error:
        return {"error": str(error)}
    started = time.perf_counter()
    found = captioner.nbest(picture)
    maps = captioner.attention(picture, [alternative.caption for alternative in found])
    entries = [None] * len(found) if maps is None else [encode_attention(name, words) for words in maps]
    for entry in entries:
        if entry is not None:
            entry["words"] = [printable(word) for word in entry["words"]]
    shown = shrink(picture, LONGEST_SIDE, MOST_BYTES)
    return {
        "name": name,
        "seconds": time.perf_counter() - started,
        "picture": {"uri": shown.uri, "width": shown.width, "height": shown.height},
        "alternatives": [
            {"caption": printable(alternative.caption), "nats": -alternative.score, "map": entry}
            for alternative, entry in zip(found, entries, strict=True)
        ],
    }


def read_upload(path: Path, name: str, limits: Limits) -> "Tensor":
    """Pixels uint8 (3,H,W); `name` stands in the error.

    Raises:
        UnreadableImage: over a limit, empty, no picture or damaged.
    """
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise UnreadableImage(
            f"{name}: {size:,} bytes; expected at most {limits.max_bytes:,}; scale the picture down"
        )
    return decode_bytes(path.read_bytes(), name, limits.max_pixels)
