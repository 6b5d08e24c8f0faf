"""Read an image file as RGB pixels, whatever its format and mode, or raise one clear error.

Legend: H, W height and width of an image in pixels.
"""

import contextlib
import io
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import (  # Pillow knows AVIF, TIFF and WebP once their plugin is imported
    AvifImagePlugin,  # noqa: F401
    Image,
    ImageOps,
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from src.datamodule.caption_table import CaptionedImage
from src.utils.errors import UserError
from src.utils.logging import visible

# Above today's phones (200 million). A file of a few kilobytes can claim 30,000 x 30,000 pixels, which fill 2.7 GB.
PIXEL_LIMIT = 250_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own, lower limit
BYTE_LIMIT = 512 * 2**20
# No EPS and the like, whose decoders start programs.
FORMATS = ["AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]
with contextlib.suppress(ImportError):  # the extra `heic`
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")
REDUCED = 4  # a JPEG that is decoded at a reduced scale keeps that many times the pixels of a side that are needed
EXPECTED = (
    "a whole JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF or PPM image (HEIC: pip install pillow-heif; DICOM: convert it)"
)

Box = tuple[int, int, int, int]
Span = tuple[int, int] | tuple[str, int]  # offset and size in bytes in a tar file, or column and row in a parquet file


class UnreadableImage(UserError):
    """An image that cannot be used: its file and the reason, in one line whatever the file's name."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


def load_image(path: str | Path, box: Box | None = None, span: Span | None = None) -> Tensor:
    """Read an image: uint8 (3,H,W), RGB, rotated as its EXIF says, transparency over white, first frame.

    box: (left, top, right, bottom) in pixels, to crop to. span: where an image in a tar or parquet file stands.
    UnreadableImage: missing, empty, not an image, damaged, over the pixel limit, or box outside of it.
    """
    return decode_bytes(read_bytes(path, span), str(path), box)


def decode_bytes(
    data: bytes | bytearray, name: str, box: Box | None = None, pixel_limit: int | None = None, side: int | None = None
) -> Tensor:
    """Decode a file's bytes as `load_image` does; `name` stands in its error, None is PIXEL_LIMIT.

    side: pixels of a side that are needed; a much larger JPEG may then come at 1/2, 1/4 or 1/8 of its size.
    """
    with _named_errors(name), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_pixels(image, name, pixel_limit or PIXEL_LIMIT)
        size = image.size
        if side and box is None:
            image.draft(None, (REDUCED * side, REDUCED * side))
        pixels = _decode_fast(image, data) if image.size == size else None
        if pixels is None:
            image.seek(0)
            pixels = from_pillow(image)
    if box is None:
        return pixels
    left, top, right, bottom = (max(edge, 0) for edge in box)
    cropped = pixels[:, top:bottom, left:right]
    if not cropped.numel():
        raise UnreadableImage(
            f"{name}: box {box} lies outside the image of {pixels.shape[2]} x {pixels.shape[1]} pixels; "
            "expected left < right and top < bottom within it; correct the box"
        )
    return cropped


def _decode_fast(image: Image.Image, data: bytes | bytearray) -> Tensor | None:
    """Decode 8-bit gray or RGB by torchvision: the same pixels in less time; None where Pillow has to."""
    # A PNG of other depth, or with a chunk that libpng comments on.
    special = image.format == "PNG" and (data[24] != 8 or {"transparency", "icc_profile"} & image.info.keys())
    if image.format not in ("JPEG", "MPO", "PNG") or image.mode not in ("L", "RGB") or special:
        return None
    writable = data if isinstance(data, bytearray) else bytearray(data)  # else torch warns
    encoded = torch.frombuffer(writable, dtype=torch.uint8)
    with contextlib.suppress(RuntimeError):  # Pillow may read it still, or has a better message
        return decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return None


def from_pillow(image: Image.Image) -> Tensor:
    """Convert an open Pillow image, at its frame, to uint8 (3,H,W) as `load_image` does; its own errors pass."""
    rotated = ImageOps.exif_transpose(image)
    if rotated.mode.startswith("I") or rotated.mode == "F":
        # 65,535 is white: Pillow's own conversion makes all above 255 white.
        gray = np.asarray(rotated).astype(np.float64)
        white = 65535 if rotated.mode != "F" else 1 if gray.max(initial=0) <= 1 else 255
        gray = np.clip(np.rint(gray * (255 / white)), 0, 255).astype(np.uint8)
        return torch.from_numpy(gray).expand(3, -1, -1).contiguous()
    if "A" in rotated.getbands() or "transparency" in rotated.info:
        rotated = rotated.convert("RGBA")
        rotated = Image.alpha_composite(Image.new("RGBA", rotated.size, "white"), rotated)
    return torch.from_numpy(np.array(rotated.convert("RGB"))).permute(2, 0, 1)


def check_images(images: Sequence[CaptionedImage], workers: int = 8, pixel_limit: int | None = None) -> dict[str, str]:
    """Check file and header of every image, without decoding: image_id -> reason if unreadable, in table order."""

    def problem(key: tuple[str, Span | None]) -> str | None:
        path, span = key
        try:
            with _named_errors(path):
                if not span:
                    _locate(path, None)  # else a pipe would be opened
                with Image.open(io.BytesIO(read_bytes(path, span)) if span else path, formats=FORMATS) as image:
                    _check_pixels(image, path, pixel_limit or PIXEL_LIMIT)
        except UnreadableImage as error:
            return str(error)
        return None

    keys = list(dict.fromkeys((image.path, image.span) for image in images))  # each file once
    with ThreadPoolExecutor(workers) as pool:  # threads hide the latency of a cold or distant disk
        found = dict(zip(keys, pool.map(problem, keys, chunksize=64), strict=True))
    return {image.image_id: reason for image in images if (reason := found[image.path, image.span])}


@lru_cache(maxsize=256)
def _row_starts(path: str, modified: int) -> list[int]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    return [0, *accumulate(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))]


@lru_cache(maxsize=4)
def _read_row_group(path: str, modified: int, column: str, number: int) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(number, columns=[column]).column(0)


def _read_cell(path: str, column: str, row: int) -> bytes:
    """Read the bytes of an image in a parquet file; its row group, which is read whole, is kept for a while."""
    modified = os.stat(path).st_mtime_ns
    starts = _row_starts(path, modified)
    number = bisect_right(starts, row) - 1
    value = _read_row_group(path, modified, column, number)[row - starts[number]].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not content:
        raise UnreadableImage(f"{path}: row {row} has no image; expected {EXPECTED}; remove the row")
    return bytes(content)


def read_bytes(path: str | Path, span: Span | None = None) -> bytearray:
    """Read an image file, or `span` of a file; UnreadableImage where that gives no whole image file."""
    with _named_errors(str(path)):
        if span and isinstance(span[0], str):
            return bytearray(_read_cell(str(path), *span))
        offset, size = _locate(path, span)
        data = bytearray(size)
        with open(path, "rb", buffering=0) as file:  # few calls: threads release Python's lock at each
            file.seek(offset)
            del data[file.readinto(data) :]
        return data


def _locate(path: str | Path, span: Any) -> tuple[int, int]:
    """Return offset and size in bytes of an image in its file."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableImage(f"{path}: not a file; expected {EXPECTED}; replace or remove it")
    offset, size = span or (0, found.st_size)
    if not 0 < size <= BYTE_LIMIT or offset + size > found.st_size:
        prefix = f"{size:,} bytes at {offset:,} of " if span else ""
        raise UnreadableImage(
            f"{path}: {prefix}a file of {found.st_size:,} bytes; "
            f"expected an image of 1 to {BYTE_LIMIT:,} bytes; replace or remove it"
        )
    return offset, size


def _check_pixels(image: Image.Image, name: str, limit: int) -> None:
    if image.width * image.height > limit:
        raise UnreadableImage(
            f"{name}: {image.width:,} x {image.height:,} pixels; expected at most {limit:,} in all; "
            "scale the image down, remove it or set datamodule.max_megapixels"
        )


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Raise any error as UnreadableImage: a damaged file makes Pillow raise nearly anything."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FileNotFoundError | UnidentifiedImageError):
            reason = "no such file" if error.errno else "not an image of a known format"
        raise UnreadableImage(f"{name}: {reason}; expected {EXPECTED}; replace or remove it") from error
