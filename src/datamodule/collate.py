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
    """N flat rows without padding, and their cells in a padded (R,W) grid for attention.

    token: i64 (N), the place in the flattened (R,T) inputs of the token that a row holds. Filler rows, which bring N
        to a multiple of `ROW_MULTIPLE`, hold a copy of token 0 and are never read.
    row_of_token: i64 (M), the row of each token.
    mask: bool (R,1,W,W), which cell may attend to which; an empty cell attends to itself alone.
    cells: i64 (N), the cell of each row in the flattened grid; None where every cell holds a row, in order.
    rows: i64 (R*W), the row in each cell, 0 in an empty one; None where `cells` is.
    """

    token: Tensor
    row_of_token: Tensor
    mask: Tensor
    cells: Tensor | None
    rows: Tensor | None


@dataclass
class CaptionBatch:
    """What the model gets.

    image_ids: B names.
    pixel_values: f32 (B,3,H,W), or None when `features` (B,P,D) of the frozen backbone stand in for it.
    input_ids: i64 (R,T): `[start] c1 .. cn` of each caption, one after another, pad id behind.
    position_ids: i64 (R,T): from 0 again at each caption, 0 on padding.
    caption_index: i64 (R,T): which caption of the image a token belongs to, -1 on padding.
    labels: i64 (R,T): `c1 .. cn [EOS]` of each caption, -100 on padding only (pad may be EOS).
    token_index: i64 (M): the places of the tokens in a flattened (R,T) tensor.
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
    first_token = np.array([row * width + offset for row, offset in starts], dtype=np.int64)  # (K)
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # (M)
    place = np.repeat(first_token, lengths) + position  # (M), ascending
    number = [k for image in images for k in range(len(image))]
    ids = np.fromiter(
        itertools.chain.from_iterable(captions), dtype=np.int64, count=len(place) - len(captions)
    )

    def grid(fill: int, values: np.ndarray) -> np.ndarray:
        padded = np.full(shape, fill, dtype=np.int64)
        padded.reshape(-1)[place] = values
        return padded

    inputs, targets = np.full(len(place), start_id), np.full(len(place), eos_id)
    inputs[position > 0] = ids
    targets[position < np.repeat(lengths, lengths) - 1] = ids
    grids = {
        "input_ids": grid(pad_id, inputs),
        "position_ids": grid(0, position),
        "caption_index": grid(NO_CAPTION, np.repeat(np.array(number, dtype=np.int64), lengths)),
        "labels": grid(NO_LABEL, targets),
    }
    tokens = _layout(_packing_mask(grids["caption_index"]), place, place, place)
    prefixes = _prefix_layout(grids["input_ids"], place, first_token, lengths)
    row_of_place = np.zeros(grids["input_ids"].size, dtype=np.int64)
    row_of_place[place] = prefixes.row_of_token.numpy()
    return {name: torch.from_numpy(values) for name, values in grids.items()} | {
        "token_index": torch.from_numpy(place),
        "row_image": None if len(row_image) == len(images) else torch.tensor(row_image),
        "caption_shape": (len(captions), int(lengths.max(initial=1))),
        "tokens": tokens,
        "prefixes": prefixes,
        "expand": torch.from_numpy(row_of_place[tokens.token.numpy()]),
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
    input_ids: np.ndarray, place: np.ndarray, first_token: np.ndarray, lengths: np.ndarray
) -> VarlenLayout:
    """Give tokens of a row of captions one flat row where all tokens up to them are the same.

    A token's hidden state depends on the image and on the tokens before it. Captions of an image all begin with the
    start token and often with the same words ("a man ..."): those states are equal, so one will do. Exact only as long
    as no dropout tells the captions apart. Example: the captions [s a b] and [s a c] have rows s, a, b, c.

    input_ids: i64 (R,T). place: i64 (M) of the tokens. first_token, lengths: i64 (K), where a caption starts and its
    tokens. The captions are walked down together, one token at a time: linear work in tokens.
    """
    count, width = input_ids.shape
    ids = input_ids.reshape(-1)
    node_of_place = np.zeros(ids.size, dtype=np.int64)
    parent = first_token // width  # of each caption's next token; the roots are the rows
    levels: list[tuple[np.ndarray, np.ndarray]] = []  # the first place and the parent of each node, by depth
    num_nodes, num_ids = count, int(ids.max(initial=0)) + 1
    for depth in range(int(lengths.max(initial=0))):
        active = np.flatnonzero(lengths > depth)
        at = first_token[active] + depth
        key = parent[active] * num_ids + ids[at]
        _, first, node = np.unique(key, return_index=True, return_inverse=True)
        levels.append((at[first], parent[active[first]]))
        parent[active] = node_of_place[at] = num_nodes + node
        num_nodes += len(first)

    tokens = np.concatenate([np.empty(0, np.int64), *(first for first, _ in levels)])  # of each node
    order = np.argsort(tokens)
    row = tokens[order] // width
    slot = np.empty(num_nodes, dtype=np.int64)  # of each node in its row of the grid
    slot[count + order] = np.arange(len(order)) - np.searchsorted(row, row)
    most = int(np.bincount(row, minlength=1).max(initial=0))
    new_width = max(-(-most // WIDTH_MULTIPLE), 1) * WIDTH_MULTIPLE
    mask = np.repeat(np.eye(new_width, dtype=bool)[None], count, axis=0)
    begin = count
    for depth, (first, parents) in enumerate(levels):
        if depth:  # a token sees what its parent sees
            rows, slots = first // width, slot[begin : begin + len(first)]
            mask[rows, slots] |= mask[rows, slot[parents]]
        begin += len(first)
    cell = np.concatenate([np.empty(0, np.int64), tokens // width * new_width + slot[count:]])
    return _layout(mask, cell[order], tokens[order], cell[node_of_place[place] - count])


def _layout(
    mask: np.ndarray, cells: np.ndarray, tokens: np.ndarray, cell_of_token: np.ndarray
) -> VarlenLayout:
    """Number the filled cells of a grid, and as many empty ones as make a multiple of `ROW_MULTIPLE`.

    mask: bool (R,W,W). cells: the filled cells of the flattened grid, ascending. tokens: the place of the token in
    each. cell_of_token: i64 (M).
    """
    size = mask.shape[0] * mask.shape[1]
    token = np.full(size, -1, dtype=np.int64)
    token[cells] = tokens
    filler = np.flatnonzero(token < 0)[: -len(cells) % ROW_MULTIPLE]
    token[filler] = 0
    used = np.flatnonzero(token >= 0)
    rows = np.maximum(np.cumsum(token >= 0) - 1, 0)
    full = len(used) == size
    return VarlenLayout(
        token=torch.from_numpy(token[used]),
        row_of_token=torch.from_numpy(rows[cell_of_token]),
        mask=torch.from_numpy(mask)[:, None],
        cells=None if full else torch.from_numpy(used),
        rows=None if full else torch.from_numpy(rows),
    )
