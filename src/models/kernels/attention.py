"""Attention as matrix products and a softmax (math attention), which is faster than the fused kernel on a CPU in bf16.

torch's fused CPU attention is far from the machine's peak in bf16, three to eight times slower backward than batched
products with a softmax between them. In fp32, and on other devices, the fused kernel is used.

R rows of captions, B images, W columns of the grid, N flat rows, P patches, H heads, d width of a head, D = H * d,
G = R * H.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
from src.models.kernels.varlen import pad, unpad

MATH_ATTENTION = "math_attention"  # the name under which transformers finds `math_attention`


def self_attention(
    qkv: Tensor, layout: VarlenLayout, heads: int, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attend from each token to the tokens that the layout's mask allows.

    qkv: (N,3D), queries, keys and values side by side. dropout: probability of dropping an attention weight.
    Returns: (N,D).
    """
    q, k, v = _to_heads(pad(qkv, layout), 3, heads)
    return _attend(q, k, v, layout, layout.mask, scale, dropout)


def cross_attention(
    q: Tensor, kv: Tensor, layout: VarlenLayout, heads: int, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attend from each token to the patches of its image.

    q: (N,D). kv: (R,P,2D), keys and values side by side. Returns: (N,D).
    """
    (queries,) = _to_heads(pad(q, layout), 1, heads)
    keys, values = _to_heads(kv, 2, heads)
    return _attend(queries, keys, values, layout, None, scale, dropout)


def _to_heads(grid: Tensor, count: int, heads: int) -> tuple[Tensor, ...]:
    """(R,W,count*D) -> count tensors (R,H,W,d)."""
    split = grid.unflatten(-1, (count, heads, -1)).permute(2, 0, 3, 1, 4)
    return split.contiguous().unbind(0)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, layout: VarlenLayout, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """Mix values (R,H,P,d) for queries (R,H,W,d) into flat rows (N,D); mask bool (R,1,W,P)."""
    if _prefers_math(q, dropout):
        mixed = _MathAttention.apply(q, k, v, mask, scale, dropout)
    else:
        mixed = scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
    return unpad(mixed.transpose(1, 2).flatten(2), layout)


def use_math_attention(model: PreTrainedModel) -> None:
    """Let an encoder of transformers use `math_attention`, where it can be exchanged, and `OneDNNLinear`."""
    use_onednn_linear(model)
    if model._can_set_attn_implementation() and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(MATH_ATTENTION, math_attention)
        AttentionMaskInterface.register(MATH_ATTENTION, sdpa_mask)
        model.set_attn_implementation(MATH_ATTENTION)


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model use transformers' plain attention, which returns its weights and which every exporter knows."""
    modules: list[Any] = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
    before = [module.config._attn_implementation for module in modules]
    try:
        for module in modules:
            module.config._attn_implementation = "eager"
        yield
    finally:
        for module, name in zip(modules, before, strict=True):
            module.config._attn_implementation = name


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
    masked = attention_mask is not None or getattr(module, "is_causal", False)
    if masked or not _prefers_math(query, dropout):
        settings = {"scaling": scaling, "dropout": dropout, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = _MathAttention.apply(query, key, value, None, scale, dropout)
    return mixed.transpose(1, 2).contiguous(), None


def _prefers_math(x: Tensor, dropout: float) -> bool:
    """Whether products beat the fused attention: on a CPU in bf16, and with dropout, which it does not fuse."""
    return x.device.type == "cpu" and (x.dtype == torch.bfloat16 or dropout > 0)


def softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """Gradient of a softmax over the last dimension, both (...,P); fused where this torch has the private operator."""
    fused = getattr(torch, "_softmax_backward_data", None)
    if fused is not None:
        return fused(grad, weights, -1, weights.dtype)
    return weights * (grad - (grad * weights).sum(-1, keepdim=True))


class _MathAttention(torch.autograd.Function):
    """softmax(q k^T scale) v by batched products: q (R,H,W,d), k and v (R,H,P,d), mask bool (R,1,W,P) or None."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            q, k, v = (x.flatten(0, 1) for x in (query * scale, key, value))  # (G,W,d), (G,P,d)
            scores = torch.bmm(q, k.mT)  # (G,W,P)
            if mask is not None:
                bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
                scores.view(*query.shape[:2], *scores.shape[1:]).add_(bias)
            weights = torch.softmax(scores, -1)
            kept = torch.empty_like(weights).bernoulli_(1 - dropout).div_(1 - dropout) if dropout else None
            mixed = torch.bmm(weights if kept is None else weights * kept, v)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.settings = query.shape[:2], scale
        return mixed.unflatten(0, query.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, scale = ctx.settings
        q, k, v, weights, kept = ctx.saved_tensors
        dmixed = grad.flatten(0, 1)
        dweights = torch.bmm(dmixed, v.mT)
        if kept is not None:
            dweights.mul_(kept)
        dv = torch.bmm((weights if kept is None else weights * kept).mT, dmixed)
        dscores = softmax_backward(dweights, weights)
        dq, dk = torch.bmm(dscores, k).mul_(scale), torch.bmm(dscores.mT, q)
        return *(gradient.unflatten(0, shape) for gradient in (dq, dk, dv)), None, None, None
