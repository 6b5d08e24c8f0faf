"""Packed captions without padding: each token is one row of a flat matrix, equal beginnings are one row.

A linear layer does not care which tokens belong together, so it runs on flat rows, with no padding among
them; attention does care, so it runs on rows laid out image by image. `PackedRows` moves between the two.

B images, T packed tokens of an image, N rows of all images together, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.models.kernels.attention import packing_mask

# oneDNN compiles a kernel for each shape and keeps it. With a shape of its own for every batch, a small model spent
# a fourth of its step on that, and memory grew for an hour: so shapes are few.
ROWS, WIDTHS = 16, 8  # of what the number of rows, and the width of a merged grid, are multiples


@dataclass(frozen=True)
class PackedRows:
    """N flat rows and their places in a padded (B,T) grid.

    mask: bool (B,1,T,T), which place may attend to which; places of no row attend to themselves alone.
    places: i64 (N), the place of each row in the flattened grid; None where the grid has no padding.
    rows: i64 (B*T), the row at each place (0 where there is none); None where the grid has no padding.
    """

    mask: Tensor
    places: Tensor | None
    rows: Tensor | None

    @property
    def grid(self) -> tuple[int, int]:
        """(B, T)."""
        return self.mask.shape[0], self.mask.shape[2]

    def pad(self, flat: Tensor) -> Tensor:
        """(N,D) -> (B,T,D); padding holds a copy of some row, which nothing reads."""
        return _Pad.apply(flat, self)

    def pad_with_zeros(self, flat: Tensor) -> Tensor:
        """(N,D) -> (B,T,D), zero on padding: what a gradient needs."""
        images, width = self.grid
        if self.places is None:
            return flat.view(images, width, -1)
        grid = flat.new_zeros(images * width, flat.shape[1])
        return grid.index_copy_(0, self.places, flat).view(images, width, -1)

    def flatten(self, grid: Tensor) -> Tensor:
        """(B,T,D) or (B*T,D) -> (N,D)."""
        return _Flatten.apply(grid.reshape(-1, grid.shape[-1]), self)


class _Pad(torch.autograd.Function):
    """Nothing reads the padding, so its gradient is zero, and each row is taken at one place only."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: PackedRows) -> Tensor:
        ctx.layout = layout
        grid = flat if layout.rows is None else flat.index_select(0, layout.rows)
        return grid.view(*layout.grid, flat.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.layout.flatten(grad), None


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: Tensor, layout: PackedRows) -> Tensor:
        ctx.layout = layout
        return grid.view_as(grid) if layout.places is None else grid.index_select(0, layout.places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.layout.pad_with_zeros(grad).flatten(0, 1), None


@dataclass(frozen=True)
class TokenRows:
    """Which row stands for which token of a (B,T) grid.

    rows: the grid of the N rows. It may have a few spare rows, which nobody reads.
    first: i64 (N), the place in the flattened (B,T) grid of the token that a row holds (0 for a spare row).
    row_of_place: i64 (B*T), the row that stands for the token at each place; some row on padding.
    """

    rows: PackedRows
    first: Tensor
    row_of_place: Tensor


def token_rows(caption_index: Tensor) -> TokenRows:
    """One row per token of a batch; caption_index: i64 (B,T), -1 on padding."""
    real = (caption_index >= 0).flatten()
    places = real.nonzero()[:, 0]
    return _rows(packing_mask(caption_index), places, places, torch.arange(len(real), device=real.device))


def deduplicate_prefixes(input_ids: Tensor, caption_index: Tensor) -> TokenRows:
    """Give tokens of one image one row where all tokens up to them are the same.

    A token's hidden state depends on the image and on the tokens before it. Captions of an image all begin
    with the start token and often with the same words ("a man ..."): those states are equal, so one will do.
    Exact only as long as nothing random (dropout) tells the captions apart.

    input_ids, caption_index: i64 (B,T). Example: the captions [s a b] and [s a c] have rows s, a, b, c.
    """
    images, width = caption_index.shape
    real = caption_index >= 0
    behind = packing_mask(caption_index)[:, 0].float()  # (B,T,T): a token and those before it
    depth = behind.sum(2)  # (B,T): position in the caption, counted from 1
    equal = (input_ids[:, :, None] == input_ids[:, None]) & (depth[:, :, None] == depth[:, None])
    equal &= real[:, :, None] & real[:, None]
    shared = behind @ equal.float() @ behind.mT  # (B,T,T): at how many positions two beginnings agree
    first = (equal & (shared == depth[:, :, None])).int().argmax(2)  # (B,T): the earliest of the equal ones
    kept = real & (first == torch.arange(width, device=first.device))
    merged_width = -(-int(kept.sum(1).max()) // WIDTHS) * WIDTHS
    slot = (kept.cumsum(1) - 1).gather(1, first).clamp_min(0)  # (B,T): place of its row in its image's grid
    sees = behind @ torch.nn.functional.one_hot(slot, merged_width).float()  # (B,T,merged)
    kept_places = kept.flatten().nonzero()[:, 0]
    image = kept_places // width
    mask = torch.eye(merged_width, dtype=torch.bool, device=first.device).repeat(images, 1, 1)
    mask[image, slot.flatten()[kept_places]] = sees.flatten(0, 1)[kept_places] > 0
    cells = (slot + merged_width * torch.arange(images, device=slot.device)[:, None]).flatten()  # (B*T)
    return _rows(mask[:, None], cells[kept_places], kept_places, cells)


def _rows(mask: Tensor, filled: Tensor, first: Tensor, cells: Tensor) -> TokenRows:
    """Number the filled cells of a flattened grid, and with them as many empty ones as make a multiple of `ROWS`.

    filled: i64, the cells that hold a token, in order; first: i64, the place of the token of each;
    cells: i64 (B*T), the cell of each place.
    """
    count = mask.shape[0] * mask.shape[2]
    place = torch.full((count,), -1, device=mask.device).index_copy_(0, filled, first)  # of each cell's token
    spare = (place < 0).nonzero()[: -len(filled) % ROWS, 0]
    if len(filled) + len(spare) == count:
        return TokenRows(PackedRows(mask, None, None), place.clamp_min(0), cells)
    place[spare] = 0
    places = (place >= 0).nonzero()[:, 0]
    rows = ((place >= 0).cumsum(0) - 1).clamp_min(0)
    return TokenRows(PackedRows(mask, places, rows), place[places], rows[cells])
