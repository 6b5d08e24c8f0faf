"""Collate B items into one CaptionBatch and lay out its packed captions for the decoder.

Legend: B images, K captions, R rows of packed captions (one an image, more where an image has many captions), T tokens
of a row, M tokens in all (padding not counted), P patches + class token, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.datamodule.caption_dataset import CaptionItem
from src.datamodule.images.transform import ImageTransform

NO_LABEL = -100
NO_CAPTION = -1
# Attention costs the square of a row's length, so an image with more tokens continues in another row.
MAX_ROW_TOKENS = 256
# oneDNN compiles and keeps a kernel for each shape; so rows and grid width of a layout are multiples of these.
ROW_MULTIPLE, WIDTH_MULTIPLE = 16, 8


@dataclass(frozen=True)
class VarlenLayout:
    """N flat rows without padding, and their indices in a padded (R,W) grid for attention.

    Padding rows, which bring N to a multiple of `ROW_MULTIPLE`, hold a copy of token 0 and are never read.
    """

    token: Tensor  # i64 (N): the index in the flattened (R,T) inputs of the token that a row holds
    row_of_token: Tensor  # i64 (M)
    mask: Tensor  # bool (R,1,W,W), which column may attend to which; padding attends to itself alone
    # i64 (N): of each row in the flattened grid; i64 (R*W): the row at each index of the grid, 0 on padding.
    grid_index: Tensor | None  # None where the grid has no padding, as
    flat_index: Tensor | None

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(R, W)."""
        return self.mask.shape[0], self.mask.shape[2]


@dataclass
class CaptionBatch:
    """What the model gets."""

    image_ids: list[str]  # B
    input_ids: Tensor  # i64 (R,T): `[start] c1 .. cn` of each caption, one after another, pad id behind
    position_ids: Tensor  # i64 (R,T): from 0 again at each caption, 0 on padding
    caption_index: Tensor  # i64 (R,T): which caption of the image a token belongs to, -1 on padding
    labels: Tensor  # i64 (R,T): `c1 .. cn [EOS]` of each caption, -100 on padding only (pad may be EOS)
    token_index: Tensor  # i64 (M): the tokens in a flattened (R,T) tensor
    row_image: Tensor | None  # i64 (R): the image of each row; None where each image has one row, in order
    caption_shape: tuple[int, int]  # number of captions, and tokens of the longest one, start included
    tokens: VarlenLayout  # one row per token
    prefixes: VarlenLayout  # one row per different beginning of a caption
    expand: Tensor  # i64 (rows of `tokens`): the row of `prefixes` that holds the same state
    references: list[list[str]]  # all captions of each image, also those not packed
    transform: ImageTransform | None = None  # of the pixels
    pixels: Tensor | None = None  # uint8 (B,3,H,W), or
    features: Tensor | None = None  # (B,P,D) of the frozen backbone
    unreadable: dict[str, str] = field(default_factory=dict)  # images not in the batch: image_id -> reason

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def pixel_values(self) -> Any:
        """The encoder's input f32 (B,3,H,W), made of `pixels` on their device; None in a batch of features."""
        return None if self.pixels is None or self.transform is None else self.transform.normalize(self.pixels)

    @property
    def num_tokens(self) -> int:
        """Tokens that the loss counts, EOS included, padding not."""
        return len(self.token_index)

    def to(self, device: torch.device | str, **kwargs: Any) -> "CaptionBatch":
        """Copy the tensors to `device`; pinned memory asynchronously.

        On the step's own stream: another one would hide no more than the 5 MB of 16 images' features take, 0.1 ms.
        """
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned(), **kwargs))

    def pin_memory(self) -> "CaptionBatch":
        """Copy the tensors to page-locked memory, but for features that are on the device already."""
        return _map_tensors(self, lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _map_tensors(getattr(value, f.name), change) for f in fields(value)})
    return value


def collate(
    items: Sequence[CaptionItem], transform: ImageTransform, start_id: int, eos_id: int, pad_id: int
) -> CaptionBatch:
    """Collate B items into one batch; those without an image (unreadable, not replaced) only add to `unreadable`."""
    unreadable = {image_id: reason for item in items for image_id, reason in item.unreadable.items()}
    items = [item for item in items if item.image_id]
    pixels = [item.pixels for item in items if item.pixels is not None]
    features = [item.features for item in items if item.features is not None]
    return CaptionBatch(
        image_ids=[item.image_id for item in items],
        references=[item.references for item in items],
        transform=transform,
        pixels=torch.stack(pixels) if pixels else None,
        features=torch.stack(features) if features else None,
        unreadable=unreadable,
        **pack_captions([item.captions for item in items], start_id, eos_id, pad_id),
    )


def pack_captions(
    images: Sequence[Sequence[Sequence[int]]], start_id: int, eos_id: int, pad_id: int, multiple: int = 8
) -> dict[str, Any]:
    """Pack the captions of each image into a row (or more, see `MAX_ROW_TOKENS`): CaptionBatch's fields by name.

    T is rounded up to a `multiple`. Captions [7, 8] and [9] with start 1, EOS 2 and pad 0 become, at multiple 6:

        input_ids      1  7  8  1  9  0
        position_ids   0  1  2  0  1  0
        caption_index  0  0  0  1  1 -1
        labels         7  8  2  9  2 -100

    A token's hidden state depends on the image and on the tokens before it. Where captions of an image begin with the
    same tokens ("a man ..."), `prefixes` has one row for all: [s a b] and [s a c] have four prefixes. Exact only as
    long as dropout does not differ between captions.
    """
    row_image: list[int] = []
    packed: list[tuple[int, ...]] = []  # of each token: row, column, caption, position, input, label, prefix
    numbers: dict[tuple[int, int], int] = {}  # (prefix before a token, token) -> number of the prefix
    for image, captions in enumerate(images):
        row_image.append(image)
        used = 0
        for number, caption in enumerate(captions):
            if used and used + len(caption) + 1 > MAX_ROW_TOKENS:
                row_image.append(image)
                used = 0
            before = -len(row_image)  # number of the empty prefix: one for each row, so that rows share none
            for offset, (token, label) in enumerate(zip((start_id, *caption), (*caption, eos_id), strict=True)):
                before = numbers.setdefault((before, token), len(numbers))
                packed.append((len(row_image) - 1, used, number, offset, token, label, before))
                used += 1
    columns = np.array(packed, dtype=np.int64).reshape(-1, 7).T
    row, column, number_of, position, inputs, labels, prefix = columns  # (M) each
    shape = len(row_image), -(-(int(column.max(initial=0)) + 1) // multiple) * multiple
    index = row * shape[1] + column

    def grid(fill: int, values: np.ndarray) -> Tensor:
        padded = np.full(shape, fill, dtype=np.int64)
        padded.reshape(-1)[index] = values
        return torch.from_numpy(padded)

    # A prefix's column: how many prefixes of its row occur before it.
    first: np.ndarray = np.unique(prefix, return_index=True)[1]
    prefix_column = (np.arange(len(first)) - np.searchsorted(row[first], row[first]))[prefix]
    prefix_width = -(-(int(prefix_column.max(initial=0)) + 1) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    tokens = _layout(index, shape, row, column, position)
    prefixes = _layout(index, (shape[0], prefix_width), row, prefix_column, position)
    return {
        "input_ids": grid(pad_id, inputs),
        "position_ids": grid(0, position),
        "caption_index": grid(NO_CAPTION, number_of),
        "labels": grid(NO_LABEL, labels),
        "token_index": torch.from_numpy(index),
        "row_image": None if len(row_image) == len(images) else torch.tensor(row_image),
        "caption_shape": (sum(map(len, images)), int(position.max(initial=0)) + 1),
        "tokens": tokens,
        "prefixes": prefixes,
        "expand": grid(0, prefixes.row_of_token.numpy()).flatten()[tokens.token],
    }


def _layout(
    index: np.ndarray, shape: tuple[int, int], row: np.ndarray, column: np.ndarray, position: np.ndarray
) -> VarlenLayout:
    """Number the used indices of a grid, and as many of its padding as make a multiple of `ROW_MULTIPLE`.

    index: i64 (M), the tokens in the flattened inputs. row, column: in the grid of `shape` (R,W), the same for equal
    prefixes. position: in their caption.
    """
    in_grid = row * shape[1] + column
    token = np.full(shape[0] * shape[1], -1, dtype=np.int64)
    token[in_grid[::-1]] = index[::-1]  # of equal prefixes the first token
    padding = np.flatnonzero(token < 0)
    token[padding[: -(len(token) - len(padding)) % ROW_MULTIPLE]] = 0
    used = np.flatnonzero(token >= 0)
    rows = np.maximum(np.cumsum(token >= 0) - 1, 0)
    full = len(used) == len(token)

    # A token attends to those of its caption up to itself, padding to itself alone.
    mask = np.repeat(np.eye(shape[1], dtype=bool)[None], shape[0], axis=0)
    num_keys = position + 1
    query = np.repeat(np.arange(len(index)), num_keys)
    key = query - np.arange(len(query)) + np.repeat(np.cumsum(num_keys) - num_keys, num_keys)
    mask.reshape(-1)[in_grid[query] * shape[1] + column[key]] = True
    return VarlenLayout(
        token=torch.from_numpy(token[used]),
        row_of_token=torch.from_numpy(rows[in_grid]),
        mask=torch.from_numpy(mask)[:, None],
        grid_index=None if full else torch.from_numpy(used),
        flat_index=None if full else torch.from_numpy(rows),
    )
