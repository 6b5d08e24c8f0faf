"""Items of a split: image pixels (or cached features) and the token ids of captions.

Legend: H, W height and width of an image in pixels, P patches + class token, D width.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.feature_store import ShardedFeatures
from src.datamodule.images.decode import UnreadableImage, decode_bytes, read_bytes
from src.datamodule.images.transform import ImageTransform
from src.datamodule.processor import Processor
from src.utils.errors import UserError

MAX_REPLACEMENTS = 20
MAX_CAPTIONS_PER_STEP = 32  # of one image; other epochs sample others


@dataclass(slots=True)
class CaptionItem:
    """One image, ready to be collated. `image_id` is empty when the image was unreadable and not replaced."""

    image_id: str
    captions: list[list[int]]  # token ids of the captions sampled for this epoch
    references: list[str]  # all captions of the image
    pixels: Tensor | None = None  # uint8 (3,height,width) of the encoder's size, not yet normalized
    features: Tensor | None = None  # (P,D)
    unreadable: dict[str, str] = field(default_factory=dict)  # unreadable images: image_id -> reason


def seeded_rng(seed: int, epoch: int, name: str, purpose: str) -> random.Random:
    """Return a generator that depends on the arguments alone: equal in any process, thread or resumed run."""
    key = f"{seed}:{epoch}:{purpose}:{name}".encode("utf-8", "surrogatepass")
    return random.Random(hashlib.blake2b(key, digest_size=8).digest())


def tokenize_captions(
    images: Sequence[CaptionedImage], processor: Processor, limit: int
) -> tuple[list[list[np.ndarray]], int]:
    """Return the token ids of each caption of each image, cut to `limit`, and the number of captions that were cut."""
    texts = [caption for image in images for caption in image.captions]
    arrays: list[np.ndarray] = []
    num_cut = 0
    for start in range(0, len(texts), 1000):  # lists of Python numbers take 20 times the memory of arrays
        encoded = processor.tokenize(texts[start : start + 1000])
        num_cut += sum(len(ids) > limit for ids in encoded)
        arrays += [np.array(ids[:limit], dtype=np.int32) for ids in encoded]
    remaining = iter(arrays)
    return [[next(remaining) for _ in image.captions] for image in images], num_cut


def random_crop(image: Tensor, rng: random.Random) -> Tensor:
    """Crop uint8 (3,H,W) to 60 to 100% of its area, with its aspect ratio changed by up to 4:3.

    Never mirrored, since captions say left and right, and never small, since captions name what is at the edge.
    """
    height, width = image.shape[-2:]
    area = height * width * rng.uniform(0.6, 1.0)
    stretch = rng.uniform(3 / 4, 4 / 3) ** 0.5 * (height / width) ** 0.5
    crop_height = min(max(round(area**0.5 * stretch), 1), height)
    crop_width = min(max(round(area**0.5 / stretch), 1), width)
    top = rng.randint(0, height - crop_height)
    left = rng.randint(0, width - crop_width)
    return image[:, top : top + crop_height, left : left + crop_width]


def decode_resized(
    image: CaptionedImage,
    data: bytes | bytearray,
    transform: ImageTransform,
    crop: random.Random | None,
    max_megapixels: int = 250,
) -> Tensor:
    """Decode an image's bytes, crop it to its box and (with `crop`) at random, and resize: uint8 (3,height,width)."""
    pixels = decode_bytes(
        data, image.path, image.box, max_megapixels * 1_000_000, max(transform.height, transform.width)
    )
    return transform.resize_and_crop(random_crop(pixels, crop) if crop else pixels)


@dataclass
class CaptionDataset:
    """Items of one split; the key is (index, epoch), since captions, views and crops are sampled per epoch."""

    images: Sequence[CaptionedImage]
    transform: ImageTransform
    tokens: Sequence[Sequence[np.ndarray]]  # ids of each caption of each image
    train: bool = False  # sample captions, views and crops, and replace unreadable images
    seed: int = 0
    captions_per_image: int | None = None  # sampled per epoch; None: all, at most MAX_CAPTIONS_PER_STEP
    augment: bool = False  # crop each image at random in each epoch of training
    features: ShardedFeatures | None = None  # replace pixels
    max_megapixels: int = 250  # larger images are unreadable

    def __getitem__(self, key: tuple[int, int]) -> CaptionItem:
        """Return the item of (index, epoch); in training an unreadable image is replaced by another of the split.

        In val and test the item of an unreadable image is empty and names it. UserError where 20 in a row were.
        """
        index, epoch = key
        unreadable: dict[str, str] = {}
        rng = seeded_rng(self.seed, epoch, self.images[index].image_id, "replacement")
        for _ in range(MAX_REPLACEMENTS):
            image = self.images[index]
            try:
                pixels, features = self._load(image, epoch)
                captions = self._captions(index, epoch)
                return CaptionItem(image.image_id, captions, [*image.captions], pixels, features, unreadable)
            except UnreadableImage as error:
                unreadable[image.image_id] = str(error)
            if not self.train:
                return CaptionItem("", [], [], unreadable=unreadable)
            index = rng.randrange(len(self.images))
        raise UserError(
            f"{MAX_REPLACEMENTS} images in a row cannot be read, the last: {list(unreadable.values())[-1]}; "
            "expected readable images; check the image folder and the disk"
        )

    def _load(self, image: CaptionedImage, epoch: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the pixels of an image, or the cached features (P,D) of a view that is sampled in training."""
        if self.features is None:
            augment = self.train and self.augment
            crop = seeded_rng(self.seed, epoch, image.image_id, "crop") if augment else None
            content = image.content or read_bytes(image.path, image.span)
            return decode_resized(image, content, self.transform, crop, self.max_megapixels), None
        views = self.features.num_views if self.train else 1
        view = seeded_rng(self.seed, epoch, image.image_id, "view").randrange(views)
        try:
            return None, self.features.get(image.image_id, view)
        except KeyError as error:
            raise UnreadableImage(
                f"{image.path}: no cached features; it could not be read when the feature cache was built"
            ) from error

    def _captions(self, index: int, epoch: int) -> list[list[int]]:
        captions, count = [ids.tolist() for ids in self.tokens[index]], self.captions_per_image or MAX_CAPTIONS_PER_STEP
        if not self.train or count >= len(captions):
            return captions
        rng = seeded_rng(self.seed, epoch, self.images[index].image_id, "captions")
        return [captions[k] for k in sorted(rng.sample(range(len(captions)), count))]
