"""Attention as matrix products and a softmax (math attention), which is faster than the fused kernel on a CPU in bf16.

torch's fused CPU attention is far from the machine's peak in bf16, three to eight times slower backward than batched
products with a softmax between them. In fp32, and on other devices, the fused kernel is used.

R rows of captions, B images, W cells of a row, N flat rows, P patches, H heads, d width of a head, D = H * d,
G = R * H.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from src.datamodule.collate import VarlenLayout
from src.models.kernels.linear import use_onednn_linear
from src.models.kernels.varlen import flatten, pad, pad_with_zeros

MATH_ATTENTION = "math_attention"  # the name under which transformers finds `math_attention`


def self_attention(
    qkv: Tensor, layout: VarlenLayout, heads: int, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attend from each token to the tokens that the layout's mask allows.

    qkv: (N,3D), queries, keys and values side by side. dropout: probability of dropping an attention weight.
    Returns: (N,D).
    """
    if _prefers_math(qkv, dropout):
        return _SelfAttention.apply(qkv, layout, heads, scale, dropout)
    q, k, v = _to_heads(pad(qkv, layout), 3, heads).unflatten(1, (-1, heads))
    mixed = scaled_dot_product_attention(q, k, v, layout.mask, dropout, scale=scale)
    return flatten(mixed.transpose(1, 2).flatten(2), layout)


def cross_attention(
    q: Tensor, kv: Tensor, layout: VarlenLayout, heads: int, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attend from each token to the patches of its image.

    q: (N,D). kv: (R,P,2D), keys and values side by side. Returns: (N,D).
    """
    if _prefers_math(q, dropout):
        return _CrossAttention.apply(q, kv, layout, heads, scale, dropout)
    queries = _to_heads(pad(q, layout), 1, heads).unflatten(1, (-1, heads))[0]
    k, v = _to_heads(kv, 2, heads).unflatten(1, (-1, heads))
    mixed = scaled_dot_product_attention(queries, k, v, None, dropout, scale=scale)
    return flatten(mixed.transpose(1, 2).flatten(2), layout)


def use_math_attention(model: PreTrainedModel) -> None:
    """Let an encoder of transformers attend through `math_attention` and multiply through `OneDNNLinear`.

    Attention that cannot be exchanged stays as it is.
    """
    use_onednn_linear(model)
    if model._can_set_attn_implementation() and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(MATH_ATTENTION, math_attention)
        AttentionMaskInterface.register(MATH_ATTENTION, sdpa_mask)
        model.set_attn_implementation(MATH_ATTENTION)


def math_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers' registry: query (B,H,T,d), key and value (B,H,P,d).

    Returns: mixed values (B,T,H,d). Attention with a mask, or on another device or in fp32, goes to transformers' sdpa.
    """
    unmasked = attention_mask is None and not getattr(module, "is_causal", False)
    if not unmasked or not _prefers_math(query, dropout):
        settings = {"scaling": scaling, "dropout": dropout, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _HeadAttention.apply(query, key, value, scale, dropout), None


def _prefers_math(x: Tensor, dropout: float) -> bool:
    """Whether products beat the fused attention: on a CPU in bf16, and with dropout, which it does not fuse."""
    return x.device.type == "cpu" and (x.dtype == torch.bfloat16 or dropout > 0)


def softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """Gradient of a softmax over the last dimension, both (...,P); fused where this torch has the private operator."""
    fused = getattr(torch, "_softmax_backward_data", None)
    if fused is not None:
        return fused(grad, weights, -1, weights.dtype)
    return weights * (grad - (grad * weights).sum(-1, keepdim=True))


class _HeadAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        q, k, v = (heads.flatten(0, 1) for heads in (query * scale, key, value))  # (G,T,d), (G,P,d)
        with torch.autocast("cpu", enabled=False):
            mixed, weights, kept = _attend(q, k, v, None, dropout)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.settings = query.shape[1], scale
        return mixed.unflatten(0, query.shape[:2]).transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heads, scale = ctx.settings
        q, k, v, weights, kept = ctx.saved_tensors
        dq, dkv = torch.empty_like(q), torch.empty(2, *k.shape, dtype=k.dtype)
        _attend_backward(grad.transpose(1, 2).flatten(0, 1), q, k, v, weights, kept, dq, dkv)
        dq, dk, dv = (grads.unflatten(0, (-1, heads)) for grads in (dq.mul_(scale), *dkv))
        return dq, dk, dv, None, None


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, layout: VarlenLayout, heads: int, scale: float, dropout: float
    ) -> Tensor:
        q, k, v = _to_heads(pad(qkv, layout), 3, heads)
        bias = torch.zeros_like(layout.mask, dtype=q.dtype).masked_fill_(~layout.mask, float("-inf"))
        mixed, weights, kept = _attend(q.mul_(scale), k, v, bias, dropout)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.settings = layout, heads, scale
        return flatten(_from_heads(mixed[None], heads), layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, heads, scale = ctx.settings
        (dmixed,) = _to_heads(pad_with_zeros(grad, layout), 1, heads)
        q, k, v, weights, kept = ctx.saved_tensors
        dqkv = torch.empty(3, *q.shape, dtype=q.dtype)
        _attend_backward(dmixed, q, k, v, weights, kept, dqkv[0], dqkv[1:])
        dqkv[0].mul_(scale)
        return flatten(_from_heads(dqkv, heads), layout), None, None, None, None


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, kv: Tensor, layout: VarlenLayout, heads: int, scale: float, dropout: float
    ) -> Tensor:
        (q,) = _to_heads(pad(q, layout), 1, heads)
        k, v = _to_heads(kv, 2, heads)
        mixed, weights, kept = _attend(q.mul_(scale), k, v, None, dropout)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.settings = layout, heads, scale
        return flatten(_from_heads(mixed[None], heads), layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, heads, scale = ctx.settings
        (dmixed,) = _to_heads(pad_with_zeros(grad, layout), 1, heads)
        q, k, v, weights, kept = ctx.saved_tensors
        dq, dkv = torch.empty_like(q), torch.empty(2, *k.shape, dtype=k.dtype)
        _attend_backward(dmixed, q, k, v, weights, kept, dq, dkv)
        dq = flatten(_from_heads(dq.mul_(scale)[None], heads), layout)
        return dq, _from_heads(dkv, heads), None, None, None, None


def _to_heads(grid: Tensor, count: int, heads: int) -> Tensor:
    """(R,W,count*D) -> (count,G,W,d), contiguous."""
    images, length, width = grid.shape
    split = grid.view(images, length, count, heads, width // (count * heads)).permute(2, 0, 3, 1, 4)
    return split.contiguous().flatten(1, 2)


def _from_heads(stack: Tensor, heads: int) -> Tensor:
    """(count,G,W,d) -> (R,W,count*D): undoes `_to_heads`."""
    return stack.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4).flatten(2)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """q (G,W,d), scaled; k, v (G,P,d); bias (R,1,W,P) is added to the scores.

    Returns: mixed values (G,W,d), attention weights (G,W,P), and the factor of dropout on each weight, 0 or
    1 / (1 - dropout), or None without dropout.
    """
    scores = torch.bmm(q, k.mT)
    if bias is not None:
        scores.view(bias.shape[0], -1, *bias.shape[2:]).add_(bias)
    weights = torch.softmax(scores, -1)
    if not dropout:
        return torch.bmm(weights, v), weights, None
    kept = torch.empty_like(weights).bernoulli_(1 - dropout).div_(1 - dropout)
    return torch.bmm(weights * kept, v), weights, kept


def _attend_backward(
    dmixed: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    kept: Tensor | None,
    dq: Tensor,
    dkv: Tensor,
) -> None:
    """Gradients of `_attend` into dq (G,W,d) and dkv (2,G,P,d); dmixed (G,W,d)."""
    dweights = torch.bmm(dmixed, v.mT)
    if kept is None:
        torch.bmm(weights.mT, dmixed, out=dkv[1])
    else:
        torch.bmm((weights * kept).mT, dmixed, out=dkv[1])
        dweights.mul_(kept)
    dscores = softmax_backward(dweights, weights)
    torch.bmm(dscores, k, out=dq)
    torch.bmm(dscores.mT, q, out=dkv[0])
