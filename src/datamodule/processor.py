"""What a checkpoint says about its inputs: how a picture becomes numbers and a caption becomes tokens.

Legend: H, W a picture's height and width.
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
from torchvision.transforms.v2 import functional as resizing
from transformers import PreTrainedTokenizerBase

from src.utils.errors import UserError

# Pillow numbers its filters, and image processors store that number.
FILTERS = {
    0: InterpolationMode.NEAREST_EXACT,
    1: InterpolationMode.LANCZOS,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}
# Processors through Pillow and through torchvision are that near; another crop or filter is far off.
PROBE_TOLERANCE = 4 / 255


@dataclass(frozen=True)
class ImageTransform:
    """The pixels that a checkpoint's image processor would give, in a few torch calls.

    resize: (height, width), or the shortest edge in pixels with the proportions kept, or None.
    crop: (height, width) cut from the centre (zeros are added where the picture is smaller), or None.
    resample: Pillow's number of the filter; shrinking is antialiased.
    rescale: what a pixel of 0 to 255 is multiplied by; mean, std: per channel, after rescaling.
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def height(self) -> int:
        """Height in pixels of what the encoder gets."""
        return self._size()[0]

    @property
    def width(self) -> int:
        """Width in pixels of what the encoder gets."""
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        size = self.crop or self.resize
        if not isinstance(size, tuple):
            raise UserError(
                f"the image processor's size={size!r} gives pictures of no one size; expected a height and a "
                "width or a centre crop; choose another checkpoint or mend its preprocessor_config.json"
            )
        return size

    @classmethod
    def from_processor(cls, processor: Any) -> "ImageTransform":
        """Read the settings of an image processor, or of the dict of a preprocessor_config.json of any age.

        A processor object is then held against this transform on a drawn picture, so that one which does
        more than its settings say is noticed here and not in a worse caption.

        Raises:
            UserError: settings are missing, give no one size, or the processor's pixels differ.
        """
        settings = processor if isinstance(processor, dict) else processor.to_dict()
        transform = cls(
            resize=_resize(settings),
            crop=_pair(settings, "crop_size") if settings.get("do_center_crop") else None,
            resample=_resample(settings),
            rescale=_rescale(settings),
            mean=_triple(settings, "image_mean", 0.0),
            std=_triple(settings, "image_std", 1.0),
        )
        transform._size()
        if not isinstance(processor, dict):
            _check_pixels(processor, transform)
        return transform

    def fit(self, image: Tensor) -> Tensor:
        """Resize and crop: uint8 (3,H,W) to uint8 (3,height,width)."""
        if self.resize is not None:
            image = _scale(image, self._target(image), FILTERS[self.resample])
        return image if self.crop is None else _centre(image, *self.crop)

    def normalize(self, pictures: Sequence[Tensor]) -> Tensor:
        """Rescale and normalize: B pictures uint8 (3,H,W) of one size to f32 (B,3,H,W).

        Colours stay innermost in memory, as decoders leave them. numpy computes a picture in the thread that
        calls and leaves Python's lock alone; torch would wake other threads, which loader threads do without.
        """
        colours_last = [picture.movedim(0, -1).numpy() for picture in pictures]
        shape = colours_last[0].shape
        scale = _per_pixel(self.rescale / np.array(self.std), shape)
        offset = _per_pixel(np.array(self.mean) / np.array(self.std), shape)
        values = np.empty((len(pictures), *shape), np.float32)
        for picture, value in zip(colours_last, values, strict=True):
            value[...] = picture
            np.multiply(value, scale, out=value)
            np.subtract(value, offset, out=value)
        return torch.from_numpy(values).movedim(-1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 (3,H,W) to f32 (3,height,width), ready for the encoder."""
        return self.normalize([self.fit(image)])[0]

    def fingerprint(self) -> str:
        """A short hash that changes when any setting does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def _target(self, image: Tensor) -> list[int]:
        if isinstance(self.resize, tuple):
            return list(self.resize)
        assert self.resize is not None
        height, width = image.shape[-2:]
        long = int(self.resize * max(height, width) / min(height, width))
        return [self.resize, long] if height <= width else [long, self.resize]


def _per_pixel(colours: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """f32 numbers of three colours for each pixel, or one number, twice as fast, where all are alike."""
    alike = bool((colours == colours[0]).all())
    return np.full(() if alike else shape, colours[0] if alike else colours, np.float32)


def _scale(image: Tensor, size: list[int], resample: InterpolationMode) -> Tensor:
    """uint8 (3,H,W) to uint8 (3,*size), antialiased; torchvision comes to the same call after a dozen others."""
    if list(image.shape[1:]) == size:
        return image
    if resample not in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        return resizing.resize(image, size, interpolation=resample, antialias=True)
    batch = image.movedim(0, -1)[None].movedim(-1, 1)  # so that torch sees whether colours lie innermost
    return functional.interpolate(batch, size, mode=resample.value, antialias=True)[0]


def _centre(image: Tensor, height: int, width: int) -> Tensor:
    """The middle (3,height,width) of (3,H,W), zeros where the picture is smaller.

    An odd margin is rounded down at top and left, as image processors do; torchvision's `center_crop` rounds
    to the even number.
    """
    short, narrow = max(height - image.shape[1], 0), max(width - image.shape[2], 0)
    if short or narrow:
        image = functional.pad(image, [narrow // 2, narrow - narrow // 2, short // 2, short - short // 2])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


def _resize(settings: dict[str, Any]) -> tuple[int, int] | int | None:
    if not settings.get("do_resize", True):
        return None
    size = settings.get("size")
    if isinstance(size, dict) and size.get("shortest_edge") and not size.get("longest_edge"):
        return int(size["shortest_edge"])
    return _pair(settings, "size")


def _pair(settings: dict[str, Any], key: str) -> tuple[int, int]:
    """`224`, `[224, 224]` or `{"height": 224, "width": 224}` as (height, width).

    Raises:
        UserError: it is none of these.
    """
    size = settings.get(key)
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise UserError(
        f"the image processor's {key}={size!r}; expected a number or a height and a width; "
        "mend the checkpoint's preprocessor_config.json"
    )


def _resample(settings: dict[str, Any]) -> int:
    resample = settings.get("resample", 2)
    if resample not in FILTERS:
        raise UserError(
            f"the image processor's resample={resample!r}; expected one of Pillow's filters 0 to 3; "
            "mend the checkpoint's preprocessor_config.json"
        )
    return int(resample)


def _rescale(settings: dict[str, Any]) -> float:
    # Files of 2022 hold no do_rescale: pixels were divided by 255 whenever they were normalized.
    return float(settings.get("rescale_factor") or 1 / 255) if settings.get("do_rescale", True) else 1.0


def _triple(settings: dict[str, Any], key: str, otherwise: float) -> tuple[float, float, float]:
    if not settings.get("do_normalize", True):
        return (otherwise,) * 3
    values = settings.get(key)
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise UserError(
            f"the image processor's {key}={values!r}; expected three numbers, one for each colour; "
            "mend the checkpoint's preprocessor_config.json"
        )
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _check_pixels(processor: Any, transform: ImageTransform) -> None:
    """Hold the transform against the processor on one drawn picture of 97 x 150 pixels.

    Raises:
        UserError: shapes differ, or pixels by more than 4/255 before normalization.
    """
    image = torch.randint(256, (3, 13, 19), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = resizing.resize(image, [97, 150], antialias=True)
    expected = processor(image, return_tensors="pt")["pixel_values"][0].float()
    found = transform(image)
    if found.shape == expected.shape:
        units = torch.tensor(transform.std).view(3, 1, 1) / (transform.rescale * 255)
        difference = ((found - expected).abs() * units).max().item()
        if difference <= PROBE_TOLERANCE:
            return
    else:
        difference = float("nan")
    raise UserError(
        f"the image processor {type(processor).__name__} gives {tuple(expected.shape)} where its settings "
        f"say {tuple(found.shape)} (pixels differ by {difference:.3f}); expected one of ViT, DeiT, BEiT or "
        "Swin; choose a checkpoint with such an encoder"
    )


@dataclass(frozen=True)
class Processor:
    """Tokenizer, picture transform and special ids of a checkpoint.

    max_positions: how many positions the decoder has; a caption and its start token fit in it.
    """

    tokenizer: PreTrainedTokenizerBase
    image: ImageTransform
    start_id: int
    eos_id: int
    pad_id: int
    max_positions: int

    def token_limit(self, limit: int | None = None) -> int:
        """The most tokens that a caption may have: `limit`, and never more than the decoder has positions."""
        most = self.max_positions - 1  # the start token takes one
        return most if limit is None else min(limit, most)

    def encode_caption(self, text: str, limit: int | None = None) -> list[int]:
        """Token ids of a caption without special tokens, cut to `token_limit(limit)`."""
        return self.tokenize([text])[0][: self.token_limit(limit)]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many captions, uncut and without special tokens.

        The text of a special token in a caption (`<|endoftext|>`) is spelled out and never becomes that
        token: a caption cannot end itself.
        """
        if not texts:
            return []
        # A lone surrogate, which a json escape can hold, is no character that a tokenizer knows.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self.tokenizer(
            clean,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Text of the ids before the first EOS (one at the very start, where start = EOS, is passed over)."""
        tokens = [int(token) for token in ids]
        if tokens and tokens[0] == self.start_id:
            tokens = tokens[1:]
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id)]
        text: Any = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return " ".join(text.split())
