"""Read an image file as RGB pixels, whatever its format and mode, or raise one clear error.

Legend: H, W height and width of an image in pixels.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import ContainerIO, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from src.datamodule.caption_table import CaptionedImage
from src.utils.errors import UserError
from src.utils.logging import visible

# Pillow's own limit: a file of a few kilobytes can claim to be 30,000 x 30,000 pixels, which fill 2.7 GB.
PIXEL_LIMIT = 89_478_485
BYTE_LIMIT = 512 * 2**20
# No EPS and the like, whose decoders start other programs. Pillow knows TIFF and WebP once their plugin is imported.
FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "PPM",
    TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)
EXPECTED = "a whole JPEG, PNG, GIF, BMP, TIFF, WebP or PPM image"
REASONS: dict[type[Exception], str] = {
    FileNotFoundError: "no such file",
    UnidentifiedImageError: "not an image of a known format",
}

Box = tuple[int, int, int, int]
Span = tuple[int, int]


class UnreadableImage(UserError):
    """An image that cannot be used: its file and the reason, in one line whatever the file's name."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


def load_image(path: str | Path, box: Box | None = None, span: Span | None = None) -> Tensor:
    """Read an image: uint8 (3,H,W), RGB, rotated as its EXIF says, transparency over white, first frame.

    box: (left, top, right, bottom) in pixels of the rotated image, to crop to.
    span: (offset, size) in bytes, where the image is a member of the tar file at `path`.
    UnreadableImage: missing, empty, not an image, damaged, over the pixel limit, or box outside of it.
    """
    return crop_to_box(decode_bytes(read_bytes(path, span), str(path)), box, str(path))


def decode_bytes(data: bytes | bytearray, name: str, pixel_limit: int | None = None) -> Tensor:
    """Decode a file's bytes to uint8 (3,H,W), as `load_image` does; `name` stands in its error.

    pixel_limit: the largest height times width; None for PIXEL_LIMIT.
    """
    with _named_errors(name), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_pixels(image, name, pixel_limit)
        # 8 bits, gray or RGB, no chunk that libpng comments on: torchvision decodes the same pixels, faster.
        special = image.format == "PNG" and (
            data[24] != 8 or {"transparency", "icc_profile"} & image.info.keys()
        )
        if image.format in ("JPEG", "MPO", "PNG") and image.mode in ("L", "RGB") and not special:
            writable = data if isinstance(data, bytearray) else bytearray(data)  # else torch warns
            encoded = torch.frombuffer(writable, dtype=torch.uint8)
            with contextlib.suppress(RuntimeError):  # Pillow may read it still, or has a better message
                return decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        image.seek(0)
        return from_pillow(image)


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


def crop_to_box(image: Tensor, box: Box | None, name: str) -> Tensor:
    """Crop uint8 (3,H,W) to (left, top, right, bottom), None for no crop; UnreadableImage where nothing is left."""
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

    Nothing is decoded: under 100 microseconds a file on a warm disk; threads hide the latency of a cold or distant one.
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
    """Raise UnreadableImage where the file is missing, empty, of no known format, or over the pixel limit."""
    with _named_errors(str(path)):
        offset, size = _locate(path, span)
        with open(path, "rb") as file:
            member = ContainerIO.ContainerIO(file, offset, size)
            with Image.open(member, formats=FORMATS) as image:
                _check_pixels(image, str(path))


def read_bytes(path: str | Path, span: Span | None = None) -> bytearray:
    """Read a file, or `span` = (offset, size) of it.

    UnreadableImage: missing, empty, too large, not a regular file, or shorter than the span.
    """
    with _named_errors(str(path)):
        offset, size = _locate(path, span)
        data = bytearray(size)
        with open(path, "rb", buffering=0) as file:  # few calls: threads release Python's lock at each
            file.seek(offset)
            del data[file.readinto(data) :]
        return data


def _locate(path: str | Path, span: Span | None) -> Span:
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


def _check_pixels(image: Image.Image, name: str, limit: int | None = None) -> None:
    limit = PIXEL_LIMIT if limit is None else limit
    if image.width * image.height > limit:
        raise UnreadableImage(
            f"{name}: {image.width:,} x {image.height:,} pixels; expected at most {limit:,} in all; "
            "scale the image down or remove it"
        )


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Raise any error as UnreadableImage: a damaged file makes Pillow raise nearly anything."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:
        reason = REASONS.get(type(error)) or " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{name}: {reason}; expected {EXPECTED}; replace or remove it") from error
