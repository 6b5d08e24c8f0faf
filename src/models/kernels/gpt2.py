"""GPT-2's decoder over packed captions: transformers' weights and results, a faster forward for the CPU.

Linear layers run on flat rows without padding or repeated prefixes, attention on a grid (layouts: collate.py). The
residual stream stays in fp32 while matrix products run in the precision of autocast.

R rows of captions, W columns of the grid, M tokens, N flat rows, P patches, H heads, d width of a head, D = H * d.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import GPT2LMHeadModel
from transformers.activations import NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Attention, GPT2Block
from transformers.pytorch_utils import Conv1D

from src.datamodule.collate import CaptionBatch, VarlenLayout
from src.models.kernels.attention import attend
from src.models.kernels.linear import linear

PLAIN = {Conv1D, GPT2Attention, GPT2Block, GPT2MLP, nn.Dropout, nn.Embedding, nn.LayerNorm, nn.ModuleList}


def is_plain_gpt2(decoder: Any) -> bool:
    """Whether `packed_hidden` can replace the decoder's forward: GPT-2 with cross-attention, no layer wrapped."""
    if type(decoder) is not GPT2LMHeadModel or type(decoder.lm_head) is not nn.Linear:
        return False
    if not decoder.config.add_cross_attention or decoder.config.reorder_and_upcast_attn:
        return False
    body = decoder.transformer
    activations = {block.mlp.act for block in body.h if hasattr(block.mlp, "act")}
    return all(type(m) in PLAIN or m in activations or m is body for m in body.modules())


def compute_dtype(decoder: Any, device: str) -> torch.dtype:
    """The precision of matrix products: autocast's where it is on, else the weights'."""
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return decoder.transformer.wte.weight.dtype


def packed_hidden(decoder: Any, states: Tensor, batch: CaptionBatch) -> Tensor:
    """Hidden states (M,D) before the vocabulary, of each row's encoder states (R,P,D), in `compute_dtype`."""
    body, device = decoder.transformer, states.device.type
    dtype = compute_dtype(decoder, device)
    with torch.autocast(device, enabled=False):
        random_from = _first_random_block(body)
        layout = batch.tokens if random_from < 0 else batch.prefixes
        ids, positions = (grid.flatten()[layout.token] for grid in (batch.input_ids, batch.position_ids))
        x = body.drop(body.wte(ids) + body.wpe(positions))  # (N,D)
        states = states.to(dtype)
        for number, block in enumerate(body.h):
            if number == random_from:
                x, layout = x.index_select(0, batch.expand), batch.tokens
            x = _block(block, x, states, layout, dtype)
        return norm(body.ln_f, x.index_select(0, layout.row_of_token), dtype)


def _first_random_block(body: Any) -> int:
    # Equal prefixes may be one row before the first active dropout; -1: in the embeddings
    for number, module in enumerate((body.drop, *body.h), -1):
        if any(m.training and m.p > 0 for m in module.modules() if isinstance(m, nn.Dropout)):
            return number
    return len(body.h)


def _block(block: Any, x: Tensor, states: Tensor, layout: VarlenLayout, dtype: torch.dtype) -> Tensor:
    """One transformer block; x (N,D) in the precision of the residual stream, states (R,P,D) in dtype."""
    attention = block.attn
    qkv = conv1d(norm(block.ln_1, x, dtype), attention.c_attn)  # (N,3D)
    q, k, v = _to_heads(_Pad.apply(qkv, layout), 3, attention.num_heads)
    x = x + _attend(attention, q, k, v, layout, layout.mask)

    attention = block.crossattention
    query = conv1d(norm(block.ln_cross_attn, x, dtype), attention.q_attn)  # (N,D)
    kv = conv1d(states.flatten(0, 1), attention.c_attn).unflatten(0, states.shape[:2])  # (R,P,2D)
    (q,) = _to_heads(_Pad.apply(query, layout), 1, attention.num_heads)
    k, v = _to_heads(kv, 2, attention.num_heads)
    x = x + _attend(attention, q, k, v, layout, None)

    inner = conv1d(norm(block.ln_2, x, dtype), block.mlp.c_fc)  # (N,4D)
    return x + block.mlp.dropout(conv1d(activation(block.mlp.act, inner), block.mlp.c_proj))


def _attend(module: Any, q: Tensor, k: Tensor, v: Tensor, layout: VarlenLayout, mask: Any) -> Tensor:
    """Attention of queries (R,H,W,d) to keys and values (R,H,P,d), and the output projection: (N,D)."""
    dropout = module.attn_dropout.p if module.training else 0.0
    mixed = attend(q, k, v, mask, module.scaling, dropout).transpose(1, 2).flatten(2)  # (R,W,D)
    return module.resid_dropout(conv1d(_Unpad.apply(mixed, layout), module.c_proj))


def _to_heads(grid: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """(R,W,count*D) -> count tensors (R,H,W,d)."""
    return grid.unflatten(-1, (count, heads, -1)).permute(2, 0, 3, 1, 4).contiguous().unbind(0)


def activation(act: nn.Module, x: Tensor) -> Tensor:
    """Apply a block's activation, GELU's tanh form by torch's fused operator."""
    return nn.functional.gelu(x, approximate="tanh") if type(act) is NewGELUActivation else act(x)


def conv1d(x: Tensor, module: Conv1D) -> Tensor:
    """x (N,I) -> (N,O)."""
    return linear(x, module, module.weight.t(), module.bias)


def norm(module: nn.LayerNorm, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalize in the precision of x, the residual stream, and cast for the matrix product that follows."""
    return module(x).to(dtype)


class _Pad(torch.autograd.Function):
    """Flat rows (N,D) to the grid (R,W,D); padding copies a row, and nothing reads it: gradient zero."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        return _gather(flat, layout.flat_index).view(*layout.grid_shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _gather(grad.flatten(0, 1), ctx.layout.grid_index), None


class _Unpad(torch.autograd.Function):
    """The grid (R,W,D) to flat rows (N,D)."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, layout: VarlenLayout) -> Tensor:
        ctx.layout = layout
        return _gather(grid.flatten(0, 1), layout.grid_index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        layout = ctx.layout
        if layout.grid_index is not None:
            zeros = grad.new_zeros(math.prod(layout.grid_shape), grad.shape[1])
            grad = zeros.index_copy_(0, layout.grid_index, grad)
        return grad.view(*layout.grid_shape, -1), None


def _gather(rows: Tensor, index: Tensor | None) -> Tensor:
    return rows.view_as(rows) if index is None else rows.index_select(0, index)
