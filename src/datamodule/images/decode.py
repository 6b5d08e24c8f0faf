"""Read an image file as RGB pixels, whatever its format and mode, or raise one clear error.

Legend: H, W height and width of an image in pixels.
"""

import contextlib
import io
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import (  # each decoder by name: Pillow knows a format only once its plugin is imported
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.headers import read_header
from src.utils.errors import UserError
from src.utils.logging import visible

# Pillow's own limit: a file of a few kilobytes can claim to be 30,000 x 30,000 pixels, which fill 2.7 GB.
PIXEL_LIMIT = 89_478_485
BYTE_LIMIT = 512 * 2**20
HEADER_BYTES = 2**16
# No EPS and the like, whose decoders start other programs.
FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)
EXPECTED = "a whole JPEG, PNG, GIF, BMP, TIFF, WebP or PPM image"

Box = tuple[int, int, int, int]
Span = tuple[int, int]


class UnreadableImage(UserError):
    """An image that cannot be used: its file and the reason, in one line whatever the file's name."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


def load_image(path: str | Path, box: Box | None = None, span: Span | None = None) -> Tensor:
    """Read an image: uint8 (3,H,W), RGB, rotated as its EXIF says, transparency over white, first frame.

    Args:
        path: a JPEG, PNG, GIF, BMP, TIFF, WebP or PPM file, recognized by content and not by name.
        box: (left, top, right, bottom) in pixels of the rotated image, to crop to.
        span: (offset, size) in bytes, where the image is a member of the tar file at `path`.

    Raises:
        UnreadableImage: missing, empty, not an image, damaged, over the pixel limit, or box outside of it.
    """
    return crop_to_box(decode_bytes(read_bytes(path, span), str(path)), box, str(path))


def read_image_bytes(image: CaptionedImage) -> bytearray:
    """Read the undecoded bytes of an image of the table, from its file or from its tar file.

    Raises:
        UnreadableImage: missing, empty, too large, or not a regular file.
    """
    return read_bytes(image.path, image.span)


def decode_bytes(data: bytes | bytearray, name: str, pixel_limit: int | None = None) -> Tensor:
    """Decode a file's bytes to uint8 (3,H,W), as `load_image` does; `name` stands in the error.

    pixel_limit: the largest height times width; None for PIXEL_LIMIT.

    Raises:
        UnreadableImage: as `load_image`.
    """
    header = read_header(data)
    if header is not None:
        _check_pixels(header.width, header.height, name, pixel_limit)
        if header.plain:
            # Pillow may still read a file that this decoder refuses, or has a better message.
            with contextlib.suppress(RuntimeError):
                return decode_image(_as_tensor(data), mode=ImageReadMode.RGB, apply_exif_orientation=True)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(*image.size, name, pixel_limit)
            image.seek(0)
            return from_pillow(image)
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise _unreadable(name, error) from error


def from_pillow(image: Image.Image) -> Tensor:
    """Convert an open Pillow image, at its frame, to uint8 (3,H,W) as `load_image` does.

    Pillow decodes the file here; what it raises for a damaged one passes through.
    """
    rotated = ImageOps.exif_transpose(image)
    if rotated.mode.startswith("I") or rotated.mode == "F":
        gray = _to_8_bits(np.asarray(rotated))
        return torch.from_numpy(gray).expand(3, -1, -1).contiguous()
    if "A" in rotated.getbands() or "transparency" in rotated.info:
        rotated = rotated.convert("RGBA")
        white = Image.new("RGBA", rotated.size, (255, 255, 255, 255))
        rotated = Image.alpha_composite(white, rotated)
    return torch.from_numpy(np.array(rotated.convert("RGB"))).permute(2, 0, 1)


def crop_to_box(image: Tensor, box: Box | None, name: str) -> Tensor:
    """Crop uint8 (3,H,W) to (left, top, right, bottom); None keeps the whole image.

    Raises:
        UnreadableImage: no pixel of the image lies in the box.
    """
    if box is None:
        return image
    left, top, right, bottom = (max(edge, 0) for edge in box)
    cropped = image[:, top:bottom, left:right]
    if not cropped.numel():
        raise UnreadableImage(
            f"{name}: box {box} lies outside the image of {image.shape[2]} x {image.shape[1]} pixels; "
            "expected left < right and top < bottom within it; correct the box"
        )
    return cropped


def check_images(images: Sequence[CaptionedImage], workers: int = 8) -> dict[str, str]:
    """Check the header of every image, each file once: image_id -> reason if unreadable, in table order.

    Checks without decoding that it is there, of a known format and within the pixel limit: tens of
    microseconds a file on a warm disk; threads hide the latency of a cold or distant one.
    """

    def problem(key: tuple[str, Span | None]) -> str | None:
        try:
            check_header(*key)
        except UnreadableImage as error:
            return str(error)
        return None

    keys = list(dict.fromkeys((image.path, image.span) for image in images))
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = dict(zip(keys, pool.map(problem, keys, chunksize=64), strict=True))
    return {image.image_id: reason for image in images if (reason := found[image.path, image.span])}


def check_header(path: str | Path, span: Span | None = None) -> None:
    """Check without decoding: the file exists, is not empty, of a known format, within the pixel limit.

    Raises:
        UnreadableImage: one of these does not hold.
    """
    offset, size = _locate(path, span)
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            head = file.read(min(size, HEADER_BYTES))
            header = read_header(head)
            if header is not None:
                return _check_pixels(header.width, header.height, str(path))
            source = file if span is None else io.BytesIO(head + file.read(size - len(head)))
            with Image.open(source, formats=FORMATS) as image:
                _check_pixels(*image.size, str(path))
    except UnreadableImage:
        raise
    except Exception as error:
        raise _unreadable(str(path), error) from error


def read_bytes(path: str | Path, span: Span | None = None) -> bytearray:
    """Read a file, or `span` = (offset, size) of it.

    Raises:
        UnreadableImage: missing, empty, too large, not a regular file, or shorter than the span.
    """
    offset, size = _locate(path, span)
    data = bytearray(size)
    try:
        with open(path, "rb", buffering=0) as file:  # few calls: threads release Python's lock at each
            if offset:
                file.seek(offset)
            del data[file.readinto(data) :]
    except OSError as error:
        raise _unreadable(str(path), error) from error
    return data


def _locate(path: str | Path, span: Span | None) -> Span:
    """Offset and size in bytes of an image in its file.

    Raises:
        UnreadableImage: the file is missing, not regular, too short, or the image empty or over the limit.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise _unreadable(str(path), error) from error
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


def _check_pixels(width: int, height: int, name: str, limit: int | None = None) -> None:
    limit = PIXEL_LIMIT if limit is None else limit
    if width * height > limit:
        raise UnreadableImage(
            f"{name}: {width:,} x {height:,} pixels; expected at most {limit:,} in all; "
            "scale the image down or remove it"
        )


def _unreadable(name: str, error: BaseException) -> UnreadableImage:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        reason = "no such file"
    elif isinstance(error, UnidentifiedImageError):
        reason = "not an image of a known format"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"over {2 * PIXEL_LIMIT:,} pixels"
    return UnreadableImage(f"{name}: {reason}; expected {EXPECTED}; replace or remove it")


def _as_tensor(data: bytes | bytearray) -> Tensor:
    # Of a bytearray: torch warns of memory that it may not write to.
    return torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=torch.uint8)


def _to_8_bits(gray: np.ndarray) -> np.ndarray:
    """Scale 16 or 32 bit gray to uint8: 65,535 is white (Pillow's own conversion makes all above 255 white)."""
    scale = 255 / 65535
    if gray.dtype == np.float32:
        scale = 255.0 if gray.max(initial=0) <= 1 else 1.0
    return np.clip(np.rint(gray.astype(np.float64) * scale), 0, 255).astype(np.uint8)
