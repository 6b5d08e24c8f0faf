"""Pictures small enough to be carried inside an HTML file."""

import base64
import io
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from src.datamodule.images.decode import UnreadableImage, load_image
from src.report.run_files import Prediction

LONGEST_SIDE = 384  # pixels
MOST_BYTES = 50_000  # of a picture: 200 of them stay under 15 MB, base64 and captions included
SHRINKING = ((1.0, 82), (1.0, 68), (0.8, 60), (0.6, 50), (0.4, 40))  # share of the longest side, JPEG quality


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(prediction: Prediction) -> Thumbnail | None:
    """The picture, at most LONGEST_SIDE pixels and MOST_BYTES bytes; None where it cannot be read."""
    try:
        pixels = load_image(prediction.path, prediction.box, prediction.span)  # uint8 (3,H,W)
    except (UnreadableImage, OSError, ValueError):  # a path with a NUL byte is a ValueError
        return None
    return shrink(pixels)


def shrink(pixels: Tensor, longest_side: int = LONGEST_SIDE, most_bytes: int = MOST_BYTES) -> Thumbnail:
    """Pixels uint8 (3,H,W) as a JPEG of at most that many pixels a side, and bytes where its quality allows."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    for share, quality in SHRINKING:
        side = round(longest_side * share)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        data = _jpeg(image, quality)
        if len(data) <= most_bytes:
            break
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", *image.size)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return buffer.getvalue()
