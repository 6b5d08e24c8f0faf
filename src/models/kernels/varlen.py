"""Move packed captions between flat rows without padding and the padded grid of attention.

A linear layer does not care which tokens belong together, so it runs on flat rows; attention runs on a grid with one
row for the captions of an image. The layout comes with the batch (`src/datamodule/collate.py`).

R rows of captions, W cells of a row, N flat rows, D width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.datamodule.collate import VarlenLayout


def pad(flat: Tensor, layout: VarlenLayout) -> Tensor:
    """(N,D) -> (R,W,D); an empty cell holds a copy of some row, which nothing reads."""
    return _Pad.apply(flat, layout)


def flatten(grid: Tensor, layout: VarlenLayout) -> Tensor:
    """(R,W,D) -> (N,D)."""
    return _Flatten.apply(grid.reshape(-1, grid.shape[-1]), layout)


def pad_with_zeros(flat: Tensor, layout: VarlenLayout) -> Tensor:
    """(N,D) -> (R,W,D), zero in empty cells, as a gradient needs."""
    images, width = grid_shape(layout)
    if layout.cells is None:
        return flat.view(images, width, -1)
    grid = flat.new_zeros(images * width, flat.shape[1])
    return grid.index_copy_(0, layout.cells, flat).view(images, width, -1)


def grid_shape(layout: VarlenLayout) -> tuple[int, int]:
    """(R, W)."""
    return layout.mask.shape[0], layout.mask.shape[2]


class _Pad(torch.autograd.Function):
    """Nothing reads an empty cell, so its gradient is zero, and each row is read from one cell only."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        grid = flat if layout.rows is None else flat.index_select(0, layout.rows)
        return grid.view(*grid_shape(layout), flat.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return flatten(grad, ctx.layout), None


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        return grid.view_as(grid) if layout.cells is None else grid.index_select(0, layout.cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return pad_with_zeros(grad, ctx.layout).flatten(0, 1), None
