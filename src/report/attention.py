"""attention.json: where a caption's words looked, small enough to be carried inside a report.

Its form: a list of {"image_id", "words": [str] (W), "height": h, "width": w, "region", "heat"}. Heat is a
base64 string of h*w bytes for each word; region is [left, top, right, bottom] of what the model saw of the
picture, as shares of the picture's sides.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.utils.files import atomic_write

if TYPE_CHECKING:
    from src.models.attention_maps import WordAttention

WHOLE = (0.0, 0.0, 1.0, 1.0)
MOST_CELLS = 64 * 64


def write_attention(path: Path, maps: Mapping[str, "WordAttention"]) -> None:
    """Write the word maps of some pictures, by image_id; heat f32 (W,h,w) in 0..1 becomes a byte a patch."""
    entries = [encode_attention(image_id, words) for image_id, words in maps.items()]
    with atomic_write(path) as file:
        json.dump(entries, file)


def encode_attention(image_id: str, attention: "WordAttention") -> dict[str, Any]:
    """One entry of attention.json."""
    heat = (attention.heat * 255).round().clamp(0, 255).byte().numpy()  # (W,h,w)
    return {
        "image_id": image_id,
        "words": list(attention.words),
        "height": int(heat.shape[1]),
        "width": int(heat.shape[2]),
        "region": list(attention.region),
        "heat": [base64.b64encode(grid.tobytes()).decode() for grid in heat],
    }


def read_attention(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of attention.json by image_id, still encoded.

    Raises:
        ValueError: the file is not JSON or not of the form above.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise ValueError("expected a list")
    return {entry["image_id"]: entry for entry in map(_checked, entries)}


def _checked(entry: Any) -> dict[str, Any]:
    """The entry with the fields of the form and no others.

    Raises:
        ValueError: a field is missing, of another type or size.
    """
    try:
        image_id, words, heat = str(entry["image_id"]), [str(word) for word in entry["words"]], entry["heat"]
        height, width = int(entry["height"]), int(entry["width"])
        region = [min(1.0, max(0.0, float(side))) for side in entry.get("region", WHOLE)]
        sizes = {len(base64.b64decode(grid, validate=True)) for grid in heat}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an entry is not a word map ({error!r})") from error
    if len(words) != len(heat) or len(region) != 4 or not 0 < height * width <= MOST_CELLS:
        raise ValueError(f"the word map of {image_id!r} does not fit its words")
    if not sizes <= {height * width}:
        raise ValueError(f"the word map of {image_id!r} is not {height} x {width} bytes a word")
    return {
        "image_id": image_id,
        "words": words,
        "height": height,
        "width": width,
        "region": region,
        "heat": heat,
    }
