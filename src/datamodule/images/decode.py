"""A picture file as RGB pixels, whatever its format and mode, or one clear error.

Legend: H, W a picture's height and width.
"""

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import (  # the decoders are named: Pillow knows a format only once its plugin is imported
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
from src.datamodule.readers.shard_members import read_member
from src.utils.errors import UserError
from src.utils.logging import visible

# What Pillow warns of is either refused here or of no matter; once, since pictures are read in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pillow's own limit: a file of a few kilobytes can claim to be 30,000 x 30,000 pixels, which fill 2.7 GB.
PIXEL_LIMIT = 89_478_485
BYTE_LIMIT = 512 * 2**20
HEADER_BYTES = 2**16
# No EPS and the like, whose decoders start other programs.
FORMATS = tuple(
    picture.format
    for picture in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)


class UnreadableImage(UserError):
    """A picture that cannot be used, with the file's name and the reason, in one line whatever the name."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


def load_image(path: str | Path, box: tuple[int, int, int, int] | None = None) -> Tensor:
    """Read a picture: uint8 (3,H,W), RGB, turned as its EXIF says, transparency over white, first frame.

    Args:
        path: a JPEG, PNG, GIF, BMP, TIFF, WebP or PPM file, told by content and not by name.
        box: (left, top, right, bottom) in pixels of the turned picture; what lies outside it is dropped.

    Raises:
        UnreadableImage: missing, empty, no picture, damaged, over the pixel limit, or box outside of it.
    """
    image = decode_picture(_read(path), str(path))
    if box is None:
        return image
    left, top, right, bottom = box
    part = image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not part.numel():
        raise UnreadableImage(
            f"{path}: box {box} lies outside the picture of {image.shape[2]} x {image.shape[1]} pixels; "
            "expected left < right and top < bottom within it; mend the box"
        )
    return part


def decode_picture(data: bytes | bytearray, name: str, pixel_limit: int | None = None) -> Tensor:
    """The pixels of a file's bytes, as `load_image` gives them; `name` stands in the error.

    pixel_limit: height times width, None for PIXEL_LIMIT.

    Raises:
        UnreadableImage: as `load_image`.
    """
    header = read_header(data)
    if header is not None:
        _check_pixels(header.width, header.height, name, pixel_limit)
        if header.plain:
            # Damage that stops this decoder may leave Pillow's something to work with, or a better message.
            with contextlib.suppress(RuntimeError):
                return decode_image(_as_tensor(data), mode=ImageReadMode.RGB, apply_exif_orientation=True)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_pixels(*picture.size, name, pixel_limit)
            picture.seek(0)
            return from_pillow(picture)
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise _unreadable(name, error) from error


def check_header(path: str | Path) -> None:
    """Cheap check without decoding: there, not empty, a known format, within the pixel limit.

    Raises:
        UnreadableImage: it is none of that.
    """
    _check_file(path)
    try:
        with open(path, "rb") as file:
            header = read_header(file.read(HEADER_BYTES))
        if header is not None:
            return _check_pixels(header.width, header.height, str(path))
        with Image.open(path, formats=FORMATS) as picture:
            _check_pixels(*picture.size, str(path))
    except UnreadableImage:
        raise
    except Exception as error:
        raise _unreadable(str(path), error) from error


def check_images(images: Sequence[CaptionedImage], workers: int = 8) -> dict[str, str]:
    """`check_header` of every picture file, each once: image_id -> what is wrong, in table order.

    Tens of microseconds a file on a warm disk; threads hide the wait on a cold or distant one.
    """

    def problem(path: str) -> str | None:
        try:
            check_header(path)
        except UnreadableImage as error:
            return str(error)
        return None

    paths = list(dict.fromkeys(image.path for image in images))
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = dict(zip(paths, pool.map(problem, paths, chunksize=64), strict=True))
    return {image.image_id: reason for image in images if (reason := found[image.path])}


def _read(path: str | Path) -> bytes | bytearray:
    try:
        if _is_inside_a_file(path):
            return read_member(path, BYTE_LIMIT)
        data = bytearray(_check_file(path))
        with open(path, "rb", buffering=0) as file:  # few calls: threads hand Python's lock over at each
            del data[file.readinto(data) :]
        return data
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _is_inside_a_file(path: str | Path) -> bool:
    """Whether a folder of the path is a file: a shard."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        return isinstance(error, NotADirectoryError)
    return False


def _check_file(path: str | Path) -> int:
    """Size in bytes of a regular file.

    Raises:
        UnreadableImage: it is missing, something else, empty or over the limit.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise _unreadable(str(path), error) from error
    if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= BYTE_LIMIT:
        what = f"a file of {found.st_size:,} bytes" if stat.S_ISREG(found.st_mode) else "not a file"
        raise UnreadableImage(
            f"{path}: {what}; expected a picture of 1 to {BYTE_LIMIT:,} bytes; mend or remove it"
        )
    return found.st_size


def _check_pixels(width: int, height: int, name: str, limit: int | None = None) -> None:
    limit = PIXEL_LIMIT if limit is None else limit
    if width * height > limit:
        raise UnreadableImage(
            f"{name}: {width:,} x {height:,} pixels; expected at most {limit:,} in all; "
            "scale the picture down or remove it"
        )


def _unreadable(name: str, error: BaseException) -> UnreadableImage:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        reason = "no such file"
    elif isinstance(error, UnidentifiedImageError):
        reason = "no picture of a known format"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"over {2 * PIXEL_LIMIT:,} pixels"
    return UnreadableImage(
        f"{name}: {reason}; expected a whole JPEG, PNG, GIF, BMP, TIFF, WebP or PPM picture; "
        "mend or remove it"
    )


def _as_tensor(data: bytes | bytearray) -> Tensor:
    # Of a bytearray: torch warns of memory that it may not write to.
    return torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=torch.uint8)


def from_pillow(picture: Image.Image) -> Tensor:
    """The pixels of an open picture, at its frame, as `load_image` gives them: uint8 (3,H,W).

    Pillow reads a file's pixels here; what it raises on a damaged one passes through.
    """
    turned = ImageOps.exif_transpose(picture)
    if turned.mode.startswith("I") or turned.mode == "F":
        grey = _eight_bits(np.asarray(turned))
        return torch.from_numpy(grey).expand(3, -1, -1).contiguous()
    if "A" in turned.getbands() or "transparency" in turned.info:
        turned = turned.convert("RGBA")
        white = Image.new("RGBA", turned.size, (255, 255, 255, 255))
        turned = Image.alpha_composite(white, turned)
    pixels = np.array(turned.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits as uint8: 65,535 is white (Pillow's own conversion makes all above 255 white)."""
    scale = 255 / 65535
    if grey.dtype == np.float32:
        scale = 255.0 if grey.max(initial=0) <= 1 else 1.0
    return np.clip(np.rint(grey.astype(np.float64) * scale), 0, 255).astype(np.uint8)
