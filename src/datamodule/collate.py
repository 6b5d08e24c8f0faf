"""Collate B items into one CaptionBatch and lay out its packed captions for the decoder.

Legend: B images, K captions, R rows of packed captions (one an image, more where an image has many captions), T tokens
of a row, M tokens in all (padding not counted), P patches + class token, D width.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.datamodule.caption_dataset import CaptionItem
from src.datamodule.processor import ImageTransform

NO_LABEL = -100
NO_CAPTION = -1
# Attention costs the square of a row's length, so an image with more tokens continues in another row.
MAX_ROW_TOKENS = 256
# oneDNN compiles a kernel for each shape and keeps it; with a new shape in every batch a small model spent a fourth of
# its step on that, and memory grew for an hour. So the number of rows of a layout and the width of its grid are
# multiples of these.
ROW_MULTIPLE, WIDTH_MULTIPLE = 16, 8


@dataclass(frozen=True)
class VarlenLayout:
    """N flat rows without padding, and their indices in a padded (R,W) grid for attention.

    token: i64 (N), the index in the flattened (R,T) inputs of the token that a row holds. Padding rows, which bring N
        to a multiple of `ROW_MULTIPLE`, hold a copy of token 0 and are never read.
    row_of_token: i64 (M), the row of each token.
    mask: bool (R,1,W,W), which column may attend to which; padding attends to itself alone.
    grid_index: i64 (N), the index of each row in the flattened grid; None where the grid has no padding.
    flat_index: i64 (R*W), the row at each index of the grid, 0 on padding; None where `grid_index` is.
    """

    token: Tensor
    row_of_token: Tensor
    mask: Tensor
    grid_index: Tensor | None
    flat_index: Tensor | None

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(R, W)."""
        return self.mask.shape[0], self.mask.shape[2]


@dataclass
class CaptionBatch:
    """What the model gets.

    image_ids: B names.
    pixel_values: f32 (B,3,H,W), or None when `features` (B,P,D) of the frozen backbone replace it.
    input_ids: i64 (R,T): `[start] c1 .. cn` of each caption, one after another, pad id behind.
    position_ids: i64 (R,T): from 0 again at each caption, 0 on padding.
    caption_index: i64 (R,T): which caption of the image a token belongs to, -1 on padding.
    labels: i64 (R,T): `c1 .. cn [EOS]` of each caption, -100 on padding only (pad may be EOS).
    token_index: i64 (M): the indices of the tokens in a flattened (R,T) tensor.
    row_image: i64 (R): the image of each row; None where each image has one row, in order.
    caption_shape: number of captions and tokens of the longest one, start included.
    tokens: the layout with one row per token. prefixes: the layout with one row per different beginning of a caption.
    expand: i64 (rows of `tokens`): the row of `prefixes` that holds the same state.
    references: all captions of each image, also those not packed.
    unreadable: images that could not be read and what was wrong, by image_id; they are not in the batch.
    """

    image_ids: list[str]
    input_ids: Tensor
    position_ids: Tensor
    caption_index: Tensor
    labels: Tensor
    token_index: Tensor
    row_image: Tensor | None
    caption_shape: tuple[int, int]
    tokens: VarlenLayout
    prefixes: VarlenLayout
    expand: Tensor
    references: list[list[str]]
    pixel_values: Tensor | None = None
    features: Tensor | None = None
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens that the loss counts, EOS included, padding not."""
        return len(self.token_index)

    def to(self, device: torch.device | str, **kwargs: Any) -> "CaptionBatch":
        """Copy the tensors to `device`; pinned memory is copied asynchronously."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned(), **kwargs))

    def pin_memory(self) -> "CaptionBatch":
        """Copy the tensors to page-locked memory."""
        return _map_tensors(self, lambda tensor: tensor.pin_memory())


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _map_tensors(getattr(value, f.name), change) for f in fields(value)})
    return value


def collate(
    items: Sequence[CaptionItem],
    transform: ImageTransform,
    start_id: int,
    eos_id: int,
    pad_id: int,
    multiple: int = 8,
) -> CaptionBatch:
    """Collate B items into one batch; those without an image (unreadable, not replaced) only add to `unreadable`."""
    unreadable = {image_id: reason for item in items for image_id, reason in item.unreadable.items()}
    items = [item for item in items if item.image_id]
    pixels = [item.pixels for item in items if item.pixels is not None]
    features = [item.features for item in items if item.features is not None]
    return CaptionBatch(
        image_ids=[item.image_id for item in items],
        references=[item.references for item in items],
        pixel_values=transform.normalize(pixels) if pixels else None,
        features=torch.stack(features) if features else None,
        unreadable=unreadable,
        **pack_captions([item.captions for item in items], start_id, eos_id, pad_id, multiple),
    )


def pack_captions(
    images: Sequence[Sequence[Sequence[int]]], start_id: int, eos_id: int, pad_id: int, multiple: int = 8
) -> dict[str, Any]:
    """Pack the captions of each image into a row (or more, see `MAX_ROW_TOKENS`): CaptionBatch's fields by name.

    T is the longest row, rounded up to a `multiple`, so that few shapes occur. Captions [7, 8] and [9] of one image
    with start 1, EOS 2 and pad 0 become, at multiple 6:

        input_ids      1  7  8  1  9  0
        position_ids   0  1  2  0  1  0
        caption_index  0  0  0  1  1 -1
        labels         7  8  2  9  2 -100
    """
    row_image, starts, longest = _assign_rows(images)
    width = max(-(-longest // multiple), 1) * multiple
    shape = len(row_image), width
    captions = [caption for image in images for caption in image]
    lengths = np.array([len(caption) + 1 for caption in captions], dtype=np.int64)  # (K)
    first = np.array([row * width + offset for row, offset in starts], dtype=np.int64)  # (K)
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # (M)
    index = np.repeat(first, lengths) + position  # (M), ascending
    number = np.array([k for image in images for k in range(len(image))], dtype=np.int64)  # (K)
    count = len(index) - len(captions)
    ids = np.fromiter(itertools.chain.from_iterable(captions), dtype=np.int64, count=count)

    def grid(fill: int, values: np.ndarray) -> np.ndarray:
        padded = np.full(shape, fill, dtype=np.int64)
        padded.reshape(-1)[index] = values
        return padded

    inputs, targets = np.full(len(index), start_id), np.full(len(index), eos_id)
    inputs[position > 0] = ids
    targets[position < np.repeat(lengths, lengths) - 1] = ids
    grids = {
        "input_ids": grid(pad_id, inputs),
        "position_ids": grid(0, position),
        "caption_index": grid(NO_CAPTION, np.repeat(number, lengths)),
        "labels": grid(NO_LABEL, targets),
    }
    tokens = _layout(_packing_mask(grids["caption_index"]), index, index, index)
    prefixes = _prefix_layout(grids["input_ids"], index, first, lengths)
    prefix_row = np.zeros(grids["input_ids"].size, dtype=np.int64)
    prefix_row[index] = prefixes.row_of_token.numpy()
    return {name: torch.from_numpy(values) for name, values in grids.items()} | {
        "token_index": torch.from_numpy(index),
        "row_image": None if len(row_image) == len(images) else torch.tensor(row_image),
        "caption_shape": (len(captions), int(lengths.max(initial=1))),
        "tokens": tokens,
        "prefixes": prefixes,
        "expand": torch.from_numpy(prefix_row[tokens.token.numpy()]),
    }


def _assign_rows(
    images: Sequence[Sequence[Sequence[int]]],
) -> tuple[list[int], list[tuple[int, int]], int]:
    """The image of each row; row and offset in it of each caption; tokens of the longest row."""
    row_image: list[int] = []
    starts: list[tuple[int, int]] = []
    longest = 0
    for number, captions in enumerate(images):
        row_image.append(number)
        used = 0
        for caption in captions:
            length = len(caption) + 1
            if used and used + length > MAX_ROW_TOKENS:
                row_image.append(number)
                used = 0
            starts.append((len(row_image) - 1, used))
            used += length
            longest = max(longest, used)
    return row_image, starts, longest


def _packing_mask(caption_index: np.ndarray) -> np.ndarray:
    """bool (R,T,T): see `src.models.loss.packing_mask`."""
    width = caption_index.shape[1]
    mask = np.tril(caption_index[:, :, None] == caption_index[:, None]) & (caption_index >= 0)[:, None]
    mask[:, np.arange(width), np.arange(width)] = True
    return mask


def _prefix_layout(
    input_ids: np.ndarray, index: np.ndarray, first: np.ndarray, lengths: np.ndarray
) -> VarlenLayout:
    """Give equal prefixes of an image's captions one flat row per token.

    A token's hidden state depends on the image and on the tokens before it. Captions of an image all begin with the
    start token and often with the same tokens ("a man ..."): those states are equal, so one is computed. Exact only as
    long as dropout does not differ between captions. Example: the captions [s a b] and [s a c] have rows s, a, b, c.

    input_ids: i64 (R,T). index: i64 (M) of the tokens. first, lengths: i64 (K), index of a caption's first token and
    its tokens. The captions are descended together, one token at a time: work linear in tokens.
    """
    count, width = input_ids.shape
    ids = input_ids.reshape(-1)
    node_of_index = np.zeros(ids.size, dtype=np.int64)
    parent = first // width  # of each caption's next token; the roots are the rows
    levels: list[tuple[np.ndarray, np.ndarray]] = []  # first index and parent of each node, by depth
    num_nodes, num_ids = count, int(ids.max(initial=0)) + 1
    for depth in range(int(lengths.max(initial=0))):
        active = np.flatnonzero(lengths > depth)
        at = first[active] + depth
        key = parent[active] * num_ids + ids[at]
        _, unique, node = np.unique(key, return_index=True, return_inverse=True)
        levels.append((at[unique], parent[active[unique]]))
        parent[active] = node_of_index[at] = num_nodes + node
        num_nodes += len(unique)

    tokens = np.concatenate([np.empty(0, np.int64), *(at for at, _ in levels)])  # of each node
    order = np.argsort(tokens)
    row = tokens[order] // width
    column = np.empty(num_nodes, dtype=np.int64)  # of each node in its row of the grid
    column[count + order] = np.arange(len(order)) - np.searchsorted(row, row)
    longest = int(np.bincount(row, minlength=1).max(initial=0))
    new_width = max(-(-longest // WIDTH_MULTIPLE), 1) * WIDTH_MULTIPLE
    mask = np.repeat(np.eye(new_width, dtype=bool)[None], count, axis=0)
    begin = count
    for depth, (at, parents) in enumerate(levels):
        if depth:  # a token attends to what its parent attends to
            rows, columns = at // width, column[begin : begin + len(at)]
            mask[rows, columns] |= mask[rows, column[parents]]
        begin += len(at)
    grid_index = tokens // width * new_width + column[count:]  # of each node
    return _layout(mask, grid_index[order], tokens[order], grid_index[node_of_index[index] - count])


def _layout(
    mask: np.ndarray, grid_index: np.ndarray, tokens: np.ndarray, index_of_token: np.ndarray
) -> VarlenLayout:
    """Number the used indices of a grid, and as many of its padding as make a multiple of `ROW_MULTIPLE`.

    mask: bool (R,W,W). grid_index: used indices of the flattened grid, ascending. tokens: index of the token at each.
    index_of_token: i64 (M), index in the grid.
    """
    size = mask.shape[0] * mask.shape[1]
    token = np.full(size, -1, dtype=np.int64)
    token[grid_index] = tokens
    padding = np.flatnonzero(token < 0)[: -len(grid_index) % ROW_MULTIPLE]
    token[padding] = 0
    used = np.flatnonzero(token >= 0)
    rows = np.maximum(np.cumsum(token >= 0) - 1, 0)
    full = len(used) == size
    return VarlenLayout(
        token=torch.from_numpy(token[used]),
        row_of_token=torch.from_numpy(rows[index_of_token]),
        mask=torch.from_numpy(mask)[:, None],
        grid_index=None if full else torch.from_numpy(used),
        flat_index=None if full else torch.from_numpy(rows),
    )
