"""Attention as matrix products and a softmax, three to eight times faster than torch's fused kernel on a CPU in bf16.

B images, H heads, W queries, P keys, d width of a head, G = B * H.
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

from src.models.kernels.linear import OneDNNLinear

MATH_ATTENTION = "math_attention"  # the name under which transformers finds `_encoder_attention`


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """Mix values (B,H,P,d) for queries (B,H,W,d) into (B,H,W,d); mask bool (B,1,W,P), dropout of attention weights."""
    if _prefers_math(q, dropout):
        return _MathAttention.apply(q, k, v, mask, scale, dropout)
    return scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)


def _prefers_math(x: Tensor, dropout: float) -> bool:
    """Whether products beat the fused attention: on a CPU in bf16, and with dropout, which it does not fuse."""
    return x.device.type == "cpu" and (x.dtype == torch.bfloat16 or dropout > 0)


def use_math_attention(model: PreTrainedModel) -> None:
    """Let an encoder of transformers use math attention, where it can be exchanged, and `OneDNNLinear`."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDNNLinear
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(MATH_ATTENTION, _encoder_attention)
        AttentionMaskInterface.register(MATH_ATTENTION, sdpa_mask)
        model.set_attn_implementation(MATH_ATTENTION)


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model use transformers' plain attention, which returns its weights and which every exporter knows."""
    modules = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    before = [module.config._attn_implementation for module in modules]
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        for module, name in zip(modules, before, strict=True):
            module.set_attn_implementation(name or "eager")


def _encoder_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any
) -> tuple[Tensor, None]:
    # For transformers' registry: (B,H,W,d) to (B,W,H,d)
    dropout = settings.get("dropout", 0.0)
    masked = attention_mask is not None or getattr(module, "is_causal", False)
    if masked or not _prefers_math(query, dropout):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    scale = settings.get("scaling") or query.shape[-1] ** -0.5
    mixed = _MathAttention.apply(query, key, value, None, scale, dropout)
    return mixed.transpose(1, 2).contiguous(), None


class _MathAttention(torch.autograd.Function):
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
        dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
        dq, dk = torch.bmm(dscores, k).mul_(scale), torch.bmm(dscores.mT, q)
        return *(gradient.unflatten(0, shape) for gradient in (dq, dk, dv)), None, None, None
