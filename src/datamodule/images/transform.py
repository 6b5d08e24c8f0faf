"""Resize, crop and normalize images as a checkpoint's image processor does, in a few torch calls.

Legend: B images, H, W height and width of an image in pixels.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_functional

from src.utils.errors import UserError

# Pillow numbers its filters, and image processors store that number.
FILTERS = {
    0: InterpolationMode.NEAREST_EXACT,
    1: InterpolationMode.LANCZOS,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}
SIDE_LIMIT = 4096  # pixels; a preprocessor_config.json can ask for any number
# Processors through Pillow and through torchvision agree to 2 of 255; another crop or filter is far off.
PROBE_TOLERANCE = 2.01 / 255


@dataclass(frozen=True)
class ImageTransform:
    """The settings of a checkpoint's image processor, and the pixels that it would give.

    resize: (height, width), or the shortest edge in pixels with the aspect ratio kept, or None.
    crop: (height, width) of the center crop (zeros are added where the image is smaller), or None.
    resample: Pillow's number of the filter; shrinking is antialiased.
    rescale: factor for pixels of 0 to 255; mean, std: per channel, after rescaling.
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def height(self) -> int:
        """Height in pixels of the encoder's input."""
        return self._size()[0]

    @property
    def width(self) -> int:
        """Width in pixels of the encoder's input."""
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        size = self.crop or self.resize
        if not isinstance(size, tuple):
            raise UserError(
                f"the image processor's size={size!r} gives images of different sizes; expected a height and a width "
                "or a center crop; choose another checkpoint or correct its preprocessor_config.json"
            )
        return size

    @classmethod
    def from_processor(cls, processor: Any) -> "ImageTransform":
        """Read the settings of an image processor, or of the dict of a preprocessor_config.json of any age.

        A processor object is compared with this transform on two random images, so that one which does more
        than its settings say is refused instead of giving worse captions.

        Raises:
            UserError: settings are missing, give no single size, or the processor's pixels differ.
        """
        settings = processor if isinstance(processor, dict) else processor.to_dict()
        transform = cls(
            resize=_resize_setting(settings),
            crop=_size_setting(settings, "crop_size") if settings.get("do_center_crop") else None,
            resample=_resample_setting(settings),
            rescale=_rescale_setting(settings),
            mean=_channel_setting(settings, "image_mean", 0.0),
            std=_channel_setting(settings, "image_std", 1.0),
        )
        transform._size()
        if not isinstance(processor, dict):
            _compare_pixels(processor, transform)
        return transform

    def resize_and_crop(self, image: Tensor) -> Tensor:
        """Resize and center-crop uint8 (3,H,W) to uint8 (3,height,width)."""
        if self.resize is not None:
            image = _resize(image, self._target(image), FILTERS[self.resample])
        return image if self.crop is None else _center_crop(image, *self.crop)

    def normalize(self, images: Sequence[Tensor]) -> Tensor:
        """Rescale and normalize B images uint8 (3,H,W) of one size to f32 (B,3,H,W), channels last in memory.

        numpy computes in the calling thread and releases Python's lock; torch would wake its own threads,
        which the loader's threads would compete with.
        """
        channels_last = [image.movedim(0, -1).numpy() for image in images]
        shape = channels_last[0].shape
        scale = _per_pixel(self.rescale / np.array(self.std), shape)
        offset = _per_pixel(np.array(self.mean) / np.array(self.std), shape)
        values = np.empty((len(images), *shape), np.float32)
        for image, value in zip(channels_last, values, strict=True):
            value[...] = image
            np.multiply(value, scale, out=value)
            np.subtract(value, offset, out=value)
        return torch.from_numpy(values).movedim(-1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 (3,H,W) to the encoder's input f32 (3,height,width)."""
        return self.normalize([self.resize_and_crop(image)])[0]

    def fingerprint(self) -> str:
        """Return a short hash that changes with any setting."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def _target(self, image: Tensor) -> list[int]:
        if isinstance(self.resize, tuple):
            return list(self.resize)
        assert self.resize is not None
        height, width = image.shape[-2:]
        long = int(self.resize * max(height, width) / min(height, width))
        return [self.resize, long] if height <= width else [long, self.resize]


def _per_pixel(channels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Spread f32 numbers of three channels over all pixels, or keep one number (twice as fast) if all are equal."""
    equal = bool((channels == channels[0]).all())
    return np.full(() if equal else shape, channels[0] if equal else channels, np.float32)


def _resize(image: Tensor, size: list[int], resample: InterpolationMode) -> Tensor:
    """Resize uint8 (3,H,W) to uint8 (3,*size), antialiased; torchvision's wrapper costs a dozen calls more."""
    if list(image.shape[1:]) == size:
        return image
    if resample not in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        return torchvision_functional.resize(image, size, interpolation=resample, antialias=True)
    batch = image.movedim(0, -1)[None].movedim(
        -1, 1
    )  # so that torch sees whether channels are last in memory
    return functional.interpolate(batch, size, mode=resample.value, antialias=True)[0]


def _center_crop(image: Tensor, height: int, width: int) -> Tensor:
    """Crop (3,H,W) to its center (3,height,width), zeros where the image is smaller.

    An odd margin is rounded down at top and left, as image processors do; torchvision's `center_crop` rounds
    to the even number.
    """
    short, narrow = max(height - image.shape[1], 0), max(width - image.shape[2], 0)
    if short or narrow:
        image = functional.pad(image, [narrow // 2, narrow - narrow // 2, short // 2, short - short // 2])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


def _invalid(key: str, value: Any, expected: str) -> UserError:
    return UserError(
        f"the image processor's {key}={value!r}; expected {expected}; "
        "correct the checkpoint's preprocessor_config.json"
    )


def _resize_setting(settings: dict[str, Any]) -> tuple[int, int] | int | None:
    if not settings.get("do_resize", True):
        return None
    size = settings.get("size")
    if isinstance(size, dict) and size.get("shortest_edge") and not size.get("longest_edge"):
        return _check_side("size", size["shortest_edge"])
    return _size_setting(settings, "size")


def _size_setting(settings: dict[str, Any], key: str) -> tuple[int, int]:
    """Read `224`, `[224, 224]` or `{"height": 224, "width": 224}` as (height, width).

    Raises:
        UserError: it is none of these.
    """
    size = settings.get(key)
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    if isinstance(size, int):
        size = [size, size]
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise _invalid(key, settings.get(key), "a number or a height and a width")
    return _check_side(key, size[0]), _check_side(key, size[1])


def _check_side(key: str, side: Any) -> int:
    if not isinstance(side, int | float) or not 1 <= side <= SIDE_LIMIT or side != int(side):
        raise _invalid(key, side, f"1 to {SIDE_LIMIT} pixels")
    return int(side)


def _resample_setting(settings: dict[str, Any]) -> int:
    resample = settings.get("resample", 2)
    if not isinstance(resample, int) or resample not in FILTERS:
        raise _invalid("resample", resample, "one of Pillow's filters 0 to 3")
    return int(resample)


def _rescale_setting(settings: dict[str, Any]) -> float:
    # Files of 2022 hold no do_rescale: pixels were divided by 255 whenever they were normalized.
    if not settings.get("do_rescale", True):
        return 1.0
    factor = settings.get("rescale_factor") or 1 / 255
    if not isinstance(factor, int | float):
        raise _invalid("rescale_factor", factor, "a number")
    return float(factor)


def _channel_setting(settings: dict[str, Any], key: str, default: float) -> tuple[float, float, float]:
    if not settings.get("do_normalize", True):
        return (default,) * 3
    values: Any = settings.get(key)
    numbers = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
    if not numbers or len(values) != 3:
        raise _invalid(key, values, "three numbers, one for each color channel")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _compare_pixels(processor: Any, transform: ImageTransform) -> None:
    """Compare the transform with the processor on a smooth small image and on a noisy one that is shrunk.

    Noise shows a processor that shrinks without antialiasing, which a smooth image hides.

    Raises:
        UserError: the processor fails, or shapes differ, or pixels by more than 2/255 before normalization.
    """
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randint(256, (3, 13, 19), dtype=torch.uint8, generator=generator)
    smooth = torchvision_functional.resize(smooth, [97, 150], antialias=True)
    shape = (3, int(2.3 * transform.height) + 7, int(3.1 * transform.width) + 5)
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    for image in (smooth, noise):
        try:
            expected = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0]).float()
        except Exception as error:
            raise UserError(
                f"the image processor {type(processor).__name__} fails on an image of {tuple(image.shape)} "
                f"({type(error).__name__}: {error}); expected one of ViT, DeiT, BEiT or Swin; choose another checkpoint"
            ) from error
        found = transform(image)
        difference = float("nan")
        if found.shape == expected.shape:
            units = torch.tensor(transform.std).view(3, 1, 1) / (transform.rescale * 255)
            difference = ((found - expected).abs() * units).max().item()
        if not difference <= PROBE_TOLERANCE:
            raise UserError(
                f"the image processor {type(processor).__name__} gives {tuple(expected.shape)} where its settings "
                f"say {tuple(found.shape)} (pixels differ by {difference:.3f}); expected one of ViT, DeiT, BEiT or "
                "Swin that antialiases; choose a checkpoint with such an encoder"
            )
