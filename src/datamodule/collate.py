"""Step 4 of the data path: B items become one CaptionBatch, all captions of an image packed into one row.

Legend: B images, K captions of an image, T tokens of all packed captions of an image, P patches + class
token, D width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.datamodule.caption_dataset import CaptionItem
from src.datamodule.processor import ImageTransform

NO_LABEL = -100
NO_CAPTION = -1


@dataclass
class CaptionBatch:
    """What the model gets.

    image_ids: B names.
    pixel_values: f32 (B,3,H,W), or None when `features` (B,P,D) of the frozen backbone stand in for it.
    input_ids: i64 (B,T): `[start] c1 .. cn` of each caption, one after another, pad id behind.
    position_ids: i64 (B,T): from 0 again at each caption, 0 on padding.
    caption_index: i64 (B,T): which caption of the row a token belongs to, -1 on padding.
    labels: i64 (B,T): `c1 .. cn [EOS]` of each caption, -100 on padding only (pad may be EOS).
    references: all captions of each image, also those not packed.
    broken: images that could not be read and what was wrong, by image_id; they are not in the batch.
    """

    image_ids: list[str]
    input_ids: Tensor
    position_ids: Tensor
    caption_index: Tensor
    labels: Tensor
    references: list[list[str]]
    pixel_values: Tensor | None = None
    features: Tensor | None = None
    broken: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens that the loss counts, EOS included, padding not."""
        return int((self.labels != NO_LABEL).sum())

    def to(self, device: torch.device | str, **kwargs: Any) -> "CaptionBatch":
        """The batch with its tensors on `device`; pinned memory travels without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned(), **kwargs))

    def pin_memory(self) -> "CaptionBatch":
        """The batch with its tensors in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> "CaptionBatch":
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


def pack_captions(
    rows: Sequence[Sequence[Sequence[int]]], start_id: int, eos_id: int, pad_id: int, multiple: int = 8
) -> dict[str, Tensor]:
    """Pack the captions of each image into one row: four i64 tensors (B,T), named as in CaptionBatch.

    T is the longest row, rounded up to a `multiple`, so that few shapes occur. Captions [7, 8] and [9] with
    start 1, EOS 2 and pad 0 become, at multiple 6:

        input_ids      1  7  8  1  9  0
        position_ids   0  1  2  0  1  0
        caption_index  0  0  0  1  1 -1
        labels         7  8  2  9  2 -100
    """
    longest = max((sum(len(caption) + 1 for caption in row) for row in rows), default=0)
    width = max(-(-longest // multiple), 1) * multiple

    def grid(fill: int, lists: Iterable[list[int]]) -> Tensor:
        padded = [numbers + [fill] * (width - len(numbers)) for numbers in lists]
        return torch.from_numpy(np.array(padded, dtype=np.int64).reshape(len(rows), width))

    return {
        "input_ids": grid(pad_id, ([t for caption in row for t in (start_id, *caption)] for row in rows)),
        "position_ids": grid(0, ([p for caption in row for p in range(len(caption) + 1)] for row in rows)),
        "caption_index": grid(
            NO_CAPTION, ([k for k, caption in enumerate(row) for _ in (0, *caption)] for row in rows)
        ),
        "labels": grid(NO_LABEL, ([t for caption in row for t in (*caption, eos_id)] for row in rows)),
    }


def unpack_captions(batch: CaptionBatch) -> list[list[list[int]]]:
    """The token ids of each caption of each image, without start and EOS: what `pack_captions` was given."""
    rows = []
    for ids, index in zip(batch.input_ids.tolist(), batch.caption_index.tolist(), strict=True):
        row: list[list[int]] = []
        for token, caption in zip(ids, index, strict=True):
            if caption == NO_CAPTION:
                break
            if caption == len(row):
                row.append([])  # the start token opens a caption
            else:
                row[-1].append(token)
        rows.append(row)
    return rows


def collate(
    items: Sequence[CaptionItem],
    transform: ImageTransform,
    start_id: int,
    eos_id: int,
    pad_id: int,
    multiple: int = 8,
) -> CaptionBatch:
    """B items to one batch; those without a picture (broken, not to be replaced) only add to `broken`."""
    broken = {image_id: reason for item in items for image_id, reason in item.broken.items()}
    items = [item for item in items if item.image_id]
    packed = pack_captions([item.captions for item in items], start_id, eos_id, pad_id, multiple)
    pixels = [item.pixels for item in items if item.pixels is not None]
    features = [item.features for item in items if item.features is not None]
    return CaptionBatch(
        image_ids=[item.image_id for item in items],
        references=[item.references for item in items],
        pixel_values=transform.normalize(pixels) if pixels else None,
        features=torch.stack(features) if features else None,
        broken=broken,
        **packed,
    )
