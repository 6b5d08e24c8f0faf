"""Attention over packed captions, written as plain matrix products where that is faster.

torch's fused CPU attention is far from the machine's peak in bf16, three to eight times slower backward than
batched products with a softmax between them. In fp32, and on other devices, it serves.

B images, T packed tokens of an image, P patches, H heads, d width of a head, D = H * d, G = B * H.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from src.models.kernels.linear import use_product

if TYPE_CHECKING:
    from src.models.kernels.varlen import PackedRows

PLAIN_PRODUCTS = "plain_products"  # the name under which transformers finds `plain_attention`


def packing_mask(caption_index: Tensor) -> Tensor:
    """Block-diagonal causal mask of packed captions.

    caption_index: i64 (B,T), the number of the caption that a token belongs to, -1 on padding.
    Returns: bool (B,1,T,T), True where the row's token may attend to the column's: same caption, not later.
    A padding token attends to itself alone, so that no row of the softmax is empty.

    Example: captions of 2 and 1 tokens and one pad, [0, 0, 1, -1], give the rows 1000, 1100, 0010, 0001.
    """
    length = caption_index.shape[1]
    same = caption_index[:, :, None] == caption_index[:, None, :]  # (B,T,T)
    visible = (same & (caption_index >= 0)[:, None, :]).tril()
    visible.diagonal(dim1=1, dim2=2).fill_(True)
    return visible.view(-1, 1, length, length)


def self_attention(
    qkv: Tensor, layout: "PackedRows", heads: int, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attention of tokens to the tokens that the layout's mask lets them see.

    qkv: (N,3D), queries, keys and values side by side. dropout: share of attention weights to drop.
    Returns: (N,D).
    """
    if _by_products(qkv, dropout):
        return _SelfAttention.apply(qkv, layout, heads, scale, dropout)
    q, k, v = _to_heads(layout.pad(qkv), 3, heads).unflatten(1, (-1, heads))
    mixed = scaled_dot_product_attention(q, k, v, layout.mask, dropout, scale=scale)
    return layout.flatten(mixed.transpose(1, 2).flatten(2))


def cross_attention(
    q: Tensor, kv: Tensor, layout: "PackedRows", heads: int, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attention of tokens to the patches of their image.

    q: (N,D). kv: (B,P,2D), keys and values side by side. Returns: (N,D).
    """
    if _by_products(q, dropout):
        return _CrossAttention.apply(q, kv, layout, heads, scale, dropout)
    queries = _to_heads(layout.pad(q), 1, heads).unflatten(1, (-1, heads))[0]
    k, v = _to_heads(kv, 2, heads).unflatten(1, (-1, heads))
    mixed = scaled_dot_product_attention(queries, k, v, None, dropout, scale=scale)
    return layout.flatten(mixed.transpose(1, 2).flatten(2))


def use_math_attention(model: PreTrainedModel) -> None:
    """Let a model of transformers, an encoder say, attend through `plain_attention` and multiply by `product`.

    Attention that cannot be exchanged stays as it is.
    """
    use_product(model)
    if model._can_set_attn_implementation() and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(PLAIN_PRODUCTS, plain_attention)
        AttentionMaskInterface.register(PLAIN_PRODUCTS, sdpa_mask)
        model.set_attn_implementation(PLAIN_PRODUCTS)


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function in the manner of transformers: query (B,H,T,d), key and value (B,H,P,d).

    Returns: mixed values (B,T,H,d). What has a mask or gains nothing goes to transformers' sdpa.
    """
    plain = attention_mask is None and not getattr(module, "is_causal", False)
    if not plain or not _by_products(query, dropout):
        settings = {"scaling": scaling, "dropout": dropout, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _HeadAttention.apply(query, key, value, scale, dropout), None


def _by_products(x: Tensor, dropout: float) -> bool:
    """Where products beat the fused attention: on a CPU in bf16, and with dropout, which it does not fuse."""
    return x.device.type == "cpu" and (x.dtype == torch.bfloat16 or dropout > 0)


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
        dq, dk, dv = (part.unflatten(0, (-1, heads)) for part in (dq.mul_(scale), *dkv))
        return dq, dk, dv, None, None


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, layout: "PackedRows", heads: int, scale: float, dropout: float
    ) -> Tensor:
        q, k, v = _to_heads(layout.pad(qkv), 3, heads)
        bias = torch.zeros_like(layout.mask, dtype=q.dtype).masked_fill_(~layout.mask, float("-inf"))
        mixed, weights, kept = _attend(q.mul_(scale), k, v, bias, dropout)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.settings = layout, heads, scale
        return layout.flatten(_from_heads(mixed[None], heads))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, heads, scale = ctx.settings
        (dmixed,) = _to_heads(layout.pad_with_zeros(grad), 1, heads)
        q, k, v, weights, kept = ctx.saved_tensors
        dqkv = torch.empty(3, *q.shape, dtype=q.dtype)
        _attend_backward(dmixed, q, k, v, weights, kept, dqkv[0], dqkv[1:])
        dqkv[0].mul_(scale)
        return layout.flatten(_from_heads(dqkv, heads)), None, None, None, None


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, kv: Tensor, layout: "PackedRows", heads: int, scale: float, dropout: float
    ) -> Tensor:
        (q,) = _to_heads(layout.pad(q), 1, heads)
        k, v = _to_heads(kv, 2, heads)
        mixed, weights, kept = _attend(q.mul_(scale), k, v, None, dropout)
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.settings = layout, heads, scale
        return layout.flatten(_from_heads(mixed[None], heads))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, heads, scale = ctx.settings
        (dmixed,) = _to_heads(layout.pad_with_zeros(grad), 1, heads)
        q, k, v, weights, kept = ctx.saved_tensors
        dq, dkv = torch.empty_like(q), torch.empty(2, *k.shape, dtype=k.dtype)
        _attend_backward(dmixed, q, k, v, weights, kept, dq, dkv)
        dq = layout.flatten(_from_heads(dq.mul_(scale)[None], heads))
        return dq, _from_heads(dkv, heads), None, None, None, None


def _to_heads(grid: Tensor, parts: int, heads: int) -> Tensor:
    """(B,T,parts*D) -> (parts,G,T,d), contiguous."""
    images, length, width = grid.shape
    split = grid.view(images, length, parts, heads, width // (parts * heads)).permute(2, 0, 3, 1, 4)
    return split.contiguous().flatten(1, 2)


def _from_heads(stack: Tensor, heads: int) -> Tensor:
    """(parts,G,T,d) -> (B,T,parts*D): undoes `_to_heads`."""
    return stack.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4).flatten(2)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """q (G,T,d), scaled; k, v (G,P,d); bias (B,1,T,P) is added to the scores.

    Returns: mixed values (G,T,d), attention weights (G,T,P), and what each weight was multiplied with by
    dropout: 0 or 1 / (1 - dropout).
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
    """Gradients of `_attend` into dq (G,T,d) and dkv (2,G,P,d); dmixed (G,T,d)."""
    dweights = torch.bmm(dmixed, v.mT)
    if kept is None:
        torch.bmm(weights.mT, dmixed, out=dkv[1])
    else:
        torch.bmm((weights * kept).mT, dmixed, out=dkv[1])
        dweights.mul_(kept)
    dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
    torch.bmm(dscores, k, out=dq)
    torch.bmm(dscores.mT, q, out=dkv[0])
