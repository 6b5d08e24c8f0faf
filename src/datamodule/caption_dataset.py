"""Step 3 of the data path: one row of the table becomes pixels (or cached features) and token ids.

Legend: K captions of an image, P patches + class token, D width.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images import UnreadableImage, load_image
from src.datamodule.preprocessing import Preprocessing
from src.utils.errors import UserError

MAX_REPLACEMENTS = 20


class FeatureStore(Protocol):
    """The frozen trunk's output for every image, one or more views of it."""

    num_views: int

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Features (P,D) of a view; view 0 is the picture as it is. KeyError when it is not there."""


@dataclass(slots=True)
class CaptionItem:
    """One image, ready to be collated. `image_id` is empty when the picture was broken and not replaced."""

    image_id: str
    captions: list[list[int]]  # token ids of the captions drawn for this epoch
    references: list[str]  # all captions of the image
    pixel_values: Tensor | None = None  # f32 (3,H,W)
    features: Tensor | None = None  # (P,D)
    broken: dict[str, str] = field(default_factory=dict)  # image_id -> what was wrong


def drawn(seed: int, epoch: int, name: str, purpose: str) -> random.Random:
    """Chance that depends on these four alone: the same in any process, order, worker or resumed run."""
    key = f"{seed}:{epoch}:{purpose}:{name}".encode("utf-8", "surrogatepass")
    return random.Random(hashlib.blake2b(key, digest_size=8).digest())


class CaptionTokens:
    """Token ids of all captions in one flat array, which worker processes share without copying."""

    def __init__(
        self, images: Sequence[CaptionedImage], preprocessing: Preprocessing, limit: int | None
    ) -> None:
        texts = [caption for image in images for caption in image.captions]
        most = preprocessing.token_limit(limit)
        encoded = preprocessing.tokenize(texts)
        self.num_captions = len(encoded)
        self.num_cut = sum(len(ids) > most for ids in encoded)
        encoded = [ids[:most] for ids in encoded]
        self.ids = np.fromiter((token for ids in encoded for token in ids), dtype=np.int32)
        self.ends = np.concatenate(([0], np.cumsum([len(ids) for ids in encoded], dtype=np.int64)))
        self.first = np.concatenate(([0], np.cumsum([len(image.captions) for image in images])))

    def __getitem__(self, index: int) -> list[list[int]]:
        """Token ids of each caption of image `index`."""
        captions = range(self.first[index], self.first[index + 1])
        return [self.ids[self.ends[k] : self.ends[k + 1]].tolist() for k in captions]

    def packed_length(self, index: int) -> int:
        """Tokens of all captions of image `index`, each with its start token."""
        first, last = self.first[index], self.first[index + 1]
        return int(self.ends[last] - self.ends[first] + last - first)


class CaptionDataset:
    """Items of one part of the split; the key is (index, epoch), since what is drawn depends on the epoch."""

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        preprocessing: Preprocessing,
        *,
        train: bool,
        seed: int = 0,
        captions_per_image: int | None = None,
        max_caption_tokens: int | None = None,
        features: FeatureStore | None = None,
    ) -> None:
        self.images = images
        self.preprocessing = preprocessing
        self.train = train
        self.seed = seed
        self.captions_per_image = captions_per_image
        self.features = features
        self.tokens = CaptionTokens(images, preprocessing, max_caption_tokens)

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
        chance = drawn(self.seed, epoch, self.images[index].image_id, "replacement")
        for _ in range(MAX_REPLACEMENTS):
            try:
                return self._item(index, epoch, broken)
            except UnreadableImage as error:
                broken[self.images[index].image_id] = str(error)
            if not self.train:
                return CaptionItem("", [], [], broken=broken)
            index = chance.randrange(len(self.images))
        raise UserError(
            f"{len(broken)} pictures in a row cannot be read, the last: {list(broken.values())[-1]}; "
            "expected readable files; look at the image folder and at the disk"
        )

    def _item(self, index: int, epoch: int, broken: dict[str, str]) -> CaptionItem:
        image = self.images[index]
        item = CaptionItem(image.image_id, self._captions(index, epoch), list(image.captions), broken=broken)
        if self.features is None:
            item.pixel_values = self.preprocessing.image(load_image(image.path, image.box))
        else:
            item.features = self._features(image, epoch)
        return item

    def _captions(self, index: int, epoch: int) -> list[list[int]]:
        captions = self.tokens[index]
        if not self.train or self.captions_per_image is None or self.captions_per_image >= len(captions):
            return captions
        chance = drawn(self.seed, epoch, self.images[index].image_id, "captions")
        chosen = sorted(chance.sample(range(len(captions)), self.captions_per_image))
        return [captions[k] for k in chosen]

    def _features(self, image: CaptionedImage, epoch: int) -> Tensor:
        assert self.features is not None
        views = self.features.num_views if self.train else 1
        view = drawn(self.seed, epoch, image.image_id, "view").randrange(views)
        try:
            return self.features.get(image.image_id, view)
        except KeyError as error:
            raise UnreadableImage(
                f"{image.path}: no cached features; expected them in the trunk cache; "
                "the picture could not be read when the cache was built"
            ) from error
