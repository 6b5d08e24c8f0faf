"""Move packed captions between flat rows without padding and the padded grid of attention.

Linear layers run on flat rows; attention runs on a grid with one row for the captions of an image. The layout comes
with the batch (`src/datamodule/collate.py`).

R rows of captions, W columns of the grid, N flat rows, D width.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.datamodule.collate import VarlenLayout


def pad(flat: Tensor, layout: VarlenLayout) -> Tensor:
    """(N,D) -> (R,W,D); padding holds a copy of some row, which nothing reads."""
    return _Pad.apply(flat, layout)


def unpad(grid: Tensor, layout: VarlenLayout) -> Tensor:
    """(R,W,D) -> (N,D)."""
    return _Unpad.apply(grid, layout)


class _Pad(torch.autograd.Function):
    """Nothing reads padding, so its gradient is zero, and each row is read once."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        grid = flat if layout.flat_index is None else flat.index_select(0, layout.flat_index)
        return grid.view(*layout.grid_shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return unpad(grad, ctx.layout), None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        flat = grid.reshape(-1, grid.shape[-1])
        return flat.view_as(flat) if layout.grid_index is None else flat.index_select(0, layout.grid_index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        layout = ctx.layout
        if layout.grid_index is not None:
            zeros = grad.new_zeros(math.prod(layout.grid_shape), grad.shape[1])
            grad = zeros.index_copy_(0, layout.grid_index, grad)
        return grad.view(*layout.grid_shape, -1), None
