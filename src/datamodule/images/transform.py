"""Resize, crop and normalize images as a checkpoint's image processor does, in a few calls.

Legend: B images, H, W height and width of an image in pixels.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_functional

from src.utils.errors import UserError

# Pillow numbers its filters, and image processors store that number.
FILTERS = (
    InterpolationMode.NEAREST_EXACT, InterpolationMode.LANCZOS, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC,
)  # fmt: skip
SIDE_LIMIT = 4096  # pixels; a preprocessor_config.json can ask for any number
# Processors through Pillow and through torchvision agree to 2 of 255; another crop or filter is far off.
PROBE_TOLERANCE = 2.01 / 255
SETTINGS = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")


@dataclass(frozen=True)
class ImageTransform:
    """The settings of a checkpoint's image processor, and the pixels that it would give."""

    resize: tuple[int, int] | int | None  # (height, width), or the shortest edge in pixels
    crop: tuple[int, int] | None  # (height, width) of the center crop; zeros where the image is smaller
    resample: int  # Pillow's number of the filter; shrinking is antialiased
    rescale: float  # factor for pixels of 0 to 255
    mean: tuple[float, float, float]  # per channel, after rescaling
    std: tuple[float, float, float]

    @property
    def height(self) -> int:
        """Height in pixels of the encoder's input."""
        return (self.crop or self.resize)[0]  # type: ignore[index]

    @property
    def width(self) -> int:
        """Width in pixels of the encoder's input."""
        return (self.crop or self.resize)[1]  # type: ignore[index]

    @classmethod
    def from_processor(cls, processor: Any) -> "ImageTransform":
        """Read the settings of a transformers image processor, and compare its pixels with those of this transform.

        UserError where settings are invalid or give no single size, or the processor does more than they say.
        """
        settings = processor.to_dict()
        try:
            transform = _read_settings(settings)
            for image in _probe_images(transform):
                expected = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0]).float()
                units = torch.tensor(transform.std).view(3, 1, 1) / (transform.rescale * 255)
                difference = ((transform(image) - expected).abs() * units).max().item()
                if not difference <= PROBE_TOLERANCE:
                    raise ValueError(f"pixels differ by {difference:.3f} from what its settings say")
        except Exception as error:  # whatever somebody's processor raises
            found = ", ".join(f"{key}={settings.get(key)!r}" for key in SETTINGS)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(
                f"{type(processor).__name__} with {found} cannot be used ({reason}); expected an antialiasing ViT, "
                f"DeiT, BEiT or Swin processor, one size of 1 to {SIDE_LIMIT} pixels, one of Pillow's filters 0 to 3 "
                "and three numbers for mean and std; correct preprocessor_config.json or choose another checkpoint"
            ) from error
        return transform

    def resize_and_crop(self, image: Tensor) -> Tensor:
        """Resize and center-crop uint8 (3,H,W) to uint8 (3,height,width)."""
        height, width = image.shape[1:]
        size, mode = self.resize, FILTERS[self.resample]
        if isinstance(size, int):
            long = int(size * max(height, width) / min(height, width))
            size = (size, long) if height <= width else (long, size)
        if size is not None and size != (height, width):
            if mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):  # torchvision's may compute in float
                # Views that show torch whether channels are last in memory.
                batch = image.movedim(0, -1)[None].movedim(-1, 1)
                image = functional.interpolate(batch, size, mode=mode.value, antialias=True)[0]
            else:
                image = torchvision_functional.resize(image, list(size), interpolation=mode, antialias=True)
        if self.crop is None:
            return image
        # An odd margin is rounded as image processors do; torchvision's `center_crop` rounds to the even number.
        top, left = (int((found - kept) / 2) for found, kept in zip(image.shape[1:], self.crop, strict=True))
        return torchvision_functional.crop(image, top, left, *self.crop)

    def normalize(self, images: Tensor) -> Tensor:
        """Rescale and normalize uint8 (B,3,H,W) to f32 (B,3,H,W), on its device, channels last in memory."""
        batch, _, height, width = images.shape
        values = torch.empty((batch, height, width, 3), device=images.device)
        values.copy_(images.movedim(1, -1))
        scale, offset = _scale_and_offset(self, width, images.device)
        values.view(batch, height, -1).mul_(scale).sub_(offset)
        return values.movedim(-1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 (3,H,W) to the encoder's input f32 (3,height,width)."""
        return self.normalize(self.resize_and_crop(image)[None])[0]

    def fingerprint(self) -> str:
        """Return a short hash that changes with any setting."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=16)
def _scale_and_offset(transform: ImageTransform, width: int, device: torch.device) -> Tensor:
    """Return the factor and then the subtrahend of the pixels of an image's row: f32 (2,width*3); no copy a batch."""
    std = np.array(transform.std)
    rows = np.stack([np.tile(transform.rescale / std, width), np.tile(np.array(transform.mean) / std, width)])
    return torch.from_numpy(rows.astype(np.float32)).to(device)


def _read_settings(settings: Mapping[str, Any]) -> ImageTransform:
    """Read an image processor's dict; KeyError, TypeError or ValueError where it is invalid."""
    size, crop, resize = settings["size"], None, None
    mean, std, rescale = [0.0] * 3, [1.0] * 3, 1.0
    if settings.get("do_resize", True):
        edge = size.get("shortest_edge") if not size.get("longest_edge") else None
        resize = _side(edge) if edge else (_side(size["height"]), _side(size["width"]))
    if settings.get("do_center_crop"):
        crop = _side(settings["crop_size"]["height"]), _side(settings["crop_size"]["width"])
    if settings.get("do_rescale", True):
        rescale = float(settings.get("rescale_factor") or 1 / 255)
    if settings.get("do_normalize", True):
        mean, std = [float(m) for m in settings["image_mean"]], [float(s) for s in settings["image_std"]]
    if not isinstance(crop or resize, tuple):
        raise ValueError("images of different sizes")
    if settings["resample"] not in range(len(FILTERS)) or len(mean) != 3 or len(std) != 3:
        raise ValueError("unknown filter or number of channels")
    return ImageTransform(resize, crop, int(settings["resample"]), rescale, (*mean,), (*std,))  # type: ignore[arg-type]


def _side(pixels: Any) -> int:
    if not 1 <= pixels <= SIDE_LIMIT or pixels != int(pixels):
        raise ValueError(f"{pixels} pixels")
    return int(pixels)


def _probe_images(transform: ImageTransform) -> list[Tensor]:
    """A smooth small image, and a noisy one to shrink, which shows a processor that does not antialias."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randint(256, (3, 13, 19), dtype=torch.uint8, generator=generator)
    shape = (3, int(2.3 * transform.height) + 7, int(3.1 * transform.width) + 5)
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return [torchvision_functional.resize(smooth, [97, 150], antialias=True), noise]
