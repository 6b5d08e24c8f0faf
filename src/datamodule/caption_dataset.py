"""Step 3 of the data path: one row of the table becomes pixels (or cached features) and token ids.

Legend: H, W a picture's height and width, P patches + class token, D width.
"""

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, load_image
from src.datamodule.processor import ImageTransform, Processor
from src.utils.errors import UserError

MAX_REPLACEMENTS = 20


class FeatureStore(Protocol):
    """The frozen backbone's output for every image, one or more views of it."""

    num_views: int

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Features (P,D) of a view; view 0 is the picture as it is. KeyError when it is not there."""


@dataclass(slots=True)
class CaptionItem:
    """One image, ready to be collated. `image_id` is empty when the picture was broken and not replaced."""

    image_id: str
    captions: list[list[int]]  # token ids of the captions drawn for this epoch
    references: list[str]  # all captions of the image
    pixels: Tensor | None = None  # uint8 (3,height,width) as the encoder wants them, not yet normalized
    features: Tensor | None = None  # (P,D)
    broken: dict[str, str] = field(default_factory=dict)  # image_id -> what was wrong


def drawn(seed: int, epoch: int, name: str, purpose: str) -> random.Random:
    """Chance that depends on these four alone: the same in any process, order, thread or resumed run."""
    key = f"{seed}:{epoch}:{purpose}:{name}".encode("utf-8", "surrogatepass")
    return random.Random(hashlib.blake2b(key, digest_size=8).digest())


class CaptionTokens:
    """Token ids of all captions in one flat array; 4 bytes a token.

    num_cut of num_captions captions were longer than `limit` (or than the decoder's positions) and were cut.
    """

    def __init__(self, images: Sequence[CaptionedImage], preprocessing: Processor, limit: int | None) -> None:
        texts = [caption for image in images for caption in image.captions]
        self.limit = preprocessing.token_limit(limit)
        self.num_captions = len(texts)
        self.num_cut = 0
        parts, lengths = [np.empty(0, dtype=np.int32)], []
        for start in range(0, len(texts), 1000):  # lists of Python numbers take 20 times the room
            encoded = preprocessing.tokenize(texts[start : start + 1000])
            self.num_cut += sum(len(ids) > self.limit for ids in encoded)
            encoded = [ids[: self.limit] for ids in encoded]
            lengths += [len(ids) for ids in encoded]
            parts.append(np.fromiter(itertools.chain.from_iterable(encoded), dtype=np.int32))
        self.ids = np.concatenate(parts)
        self.ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        self.first = np.concatenate(([0], np.cumsum([len(image.captions) for image in images])))

    def __getitem__(self, index: int) -> list[list[int]]:
        """Token ids of each caption of image `index`."""
        captions = range(self.first[index], self.first[index + 1])
        return [self.ids[self.ends[k] : self.ends[k + 1]].tolist() for k in captions]

    def packed_length(self, index: int) -> int:
        """Tokens of all captions of image `index`, each with its start token."""
        first, last = self.first[index], self.first[index + 1]
        return int(self.ends[last] - self.ends[first] + last - first)


def random_crop(image: Tensor, chance: random.Random) -> Tensor:
    """A part of uint8 (3,H,W): 60 to 100% of its area, its proportions changed by up to 4:3.

    Never mirrored, since captions say left and right, and never small, since captions name what stands at
    the edge.
    """
    height, width = image.shape[-2:]
    area = height * width * chance.uniform(0.6, 1.0)
    stretch = chance.uniform(3 / 4, 4 / 3) ** 0.5 * (height / width) ** 0.5
    part_height = min(max(round(area**0.5 * stretch), 1), height)
    part_width = min(max(round(area**0.5 / stretch), 1), width)
    top = chance.randint(0, height - part_height)
    left = chance.randint(0, width - part_width)
    return image[:, top : top + part_height, left : left + part_width]


class CaptionDataset:
    """Items of one part of the split; the key is (index, epoch), since what is drawn depends on the epoch.

    tokens: the captions' token ids; without them items have no captions (to fill a cache).
    train: broken pictures are replaced; captions, views and crops are drawn.
    augment: crop each picture anew in each epoch of training.
    view: without `train`, the augmented view to give of each picture; 0 is the picture as it is.
    """

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        transform: ImageTransform,
        tokens: CaptionTokens | None = None,
        *,
        train: bool = False,
        seed: int = 0,
        captions_per_image: int | None = None,
        augment: bool = False,
        view: int = 0,
        features: FeatureStore | None = None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.tokens = tokens
        self.train = train
        self.seed = seed
        self.captions_per_image = captions_per_image
        self.augment = augment
        self.view = view
        self.features = features

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> CaptionItem:
        """The item of (index, epoch). A broken picture is replaced by another of this part when training.

        Otherwise (val, test) the item is empty and names the broken picture, which is so left out of the
        scores and counted.

        Raises:
            UserError: 20 pictures in a row were broken.
        """
        index, epoch = key
        broken: dict[str, str] = {}
        chance: random.Random | None = None
        for _ in range(MAX_REPLACEMENTS):
            try:
                return self._item(index, epoch, broken)
            except UnreadableImage as error:
                broken[self.images[index].image_id] = str(error)
            if not self.train:
                return CaptionItem("", [], [], broken=broken)
            chance = chance or drawn(self.seed, epoch, self.images[index].image_id, "replacement")
            index = chance.randrange(len(self.images))
        raise UserError(
            f"{MAX_REPLACEMENTS} pictures in a row cannot be read, the last: {list(broken.values())[-1]}; "
            "look at the image folder and at the disk"
        )

    def _item(self, index: int, epoch: int, broken: dict[str, str]) -> CaptionItem:
        image = self.images[index]
        item = CaptionItem(image.image_id, self._captions(index, epoch), list(image.captions), broken=broken)
        if self.features is None:
            item.pixels = self._pixels(image, epoch)
        else:
            item.features = self._features(image, epoch)
        return item

    def _captions(self, index: int, epoch: int) -> list[list[int]]:
        captions = self.tokens[index] if self.tokens else []
        if not self.train or self.captions_per_image is None or self.captions_per_image >= len(captions):
            return captions
        chance = drawn(self.seed, epoch, self.images[index].image_id, "captions")
        chosen = sorted(chance.sample(range(len(captions)), self.captions_per_image))
        return [captions[k] for k in chosen]

    def _pixels(self, image: CaptionedImage, epoch: int) -> Tensor:
        """uint8 (3,height,width)."""
        picture = load_image(image.path, image.box, image.span)
        if self.train and self.augment:
            picture = random_crop(picture, drawn(self.seed, epoch, image.image_id, "crop"))
        elif self.view:
            picture = random_crop(picture, drawn(self.seed, self.view, image.image_id, "view crop"))
        return self.transform.resize_and_crop(picture)

    def _features(self, image: CaptionedImage, epoch: int) -> Tensor:
        """(P,D)."""
        assert self.features is not None
        views = self.features.num_views if self.train else 1
        view = drawn(self.seed, epoch, image.image_id, "view").randrange(views)
        try:
            return self.features.get(image.image_id, view)
        except KeyError as error:
            raise UnreadableImage(
                f"{image.path}: no cached features; expected them in the feature cache; "
                "the picture could not be read when the cache was built"
            ) from error
