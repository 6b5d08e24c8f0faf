"""GPT-2 one token at a time, for all beams of all images: the decoder step of transformers' search.

All beams of an image form one batch entry of attention: they share cross-attention keys and values, and an ancestor
mask holds which of the tokens generated so far belong to which beam, so that a copied beam copies no keys and values.

B images, K beams of an image, R = B * K rows, P patches, H heads, d width of a head, G = B * H, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.pytorch_utils import Conv1D

from src.models.kernels.gpt2 import activation, norm
from src.models.kernels.linear import onednn_linear, prepack


class BeamCache(EncoderDecoderCache):
    """Keys and values between steps; to transformers, a cache that its search may reorder."""

    is_compileable = False

    def __init__(self, images: int, beams: int, max_length: int, device: torch.device) -> None:
        super().__init__(DynamicCache(), DynamicCache())
        self.images, self.beams, self.steps = images, beams, 0
        self.patches: list[Tensor] = []  # per block (2,G,P,d), keys and values
        self.tokens: list[Tensor] = []  # per block (2,G,max_length*K,d); the K tokens of step t begin at t*K
        # bool (R,max_length*K), which of these tokens a beam consists of
        self.ancestors = torch.zeros(images * beams, max_length * beams, dtype=torch.bool, device=device)
        self.packed: dict[nn.Module, tuple[Tensor, Tensor | None]] = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.steps

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.ancestors = self.ancestors[beam_idx]

    def linear(self, x: Tensor, module: Any) -> Tensor:
        """x (n,I) -> (n,O) through a Conv1D or Linear, whose weight is packed once for the search."""
        if module not in self.packed:
            weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
            bias = None if module.bias is None else module.bias.detach().to(x.dtype)
            self.packed[module] = prepack(module, weight, x.dtype).forward, bias
        return onednn_linear(x, *self.packed[module])

    def append_step(self, dtype: torch.dtype) -> Tensor:
        """Add the next K tokens of each image; returns what to add to scores: (B,1,K,tokens)."""
        rows = torch.arange(len(self.ancestors), device=self.ancestors.device)
        self.ancestors[rows, self.steps * self.beams + rows % self.beams] = True
        self.steps += 1
        mask = self.ancestors[:, : self.steps * self.beams].view(self.images, 1, self.beams, -1)
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))


@torch.no_grad()
def prefill(decoder: Any, states: Tensor, beams: int, max_length: int) -> BeamCache:
    """Compute keys and values of the patches for every block; states (B,P,D) in the precision of the products."""
    cache = BeamCache(len(states), beams, max_length, states.device)
    for block in decoder.transformer.h:
        kv = cache.linear(states.flatten(0, 1), block.crossattention.c_attn)  # (B*P,2D)
        patches = _to_heads(kv, len(states), 2, block.attn.num_heads)
        cache.patches.append(patches)
        cache.tokens.append(patches.new_empty(*patches.shape[:2], max_length * beams, patches.shape[3]))
    return cache


@torch.no_grad()
def decode_step(decoder: Any, ids: Tensor, cache: BeamCache) -> Tensor:
    """Logits (R,V) of the next token after ids, i64 (R), the newest token of each beam."""
    body, dtype, images = decoder.transformer, cache.patches[0].dtype, cache.images
    x = body.wte(ids) + body.wpe.weight[cache.steps]  # (R,D)
    bias = cache.append_step(dtype)
    end = cache.steps * cache.beams
    for block, patches, tokens in zip(body.h, cache.patches, cache.tokens, strict=True):
        attn, cross, mlp = block.attn, block.crossattention, block.mlp
        qkv = cache.linear(norm(block.ln_1, x, dtype), attn.c_attn)  # (R,3D)
        q, *kv = _to_heads(qkv, images, 3, attn.num_heads)
        tokens[:, :, end - cache.beams : end] = torch.stack(kv)
        mixed = _attend(q * attn.scaling, tokens[:, :, :end], bias, attn.num_heads)
        x = x + cache.linear(mixed, attn.c_proj)

        q = cache.linear(norm(block.ln_cross_attn, x, dtype), cross.q_attn)  # (R,D)
        (q,) = _to_heads(q, images, 1, cross.num_heads)
        x = x + cache.linear(_attend(q * cross.scaling, patches, None, cross.num_heads), cross.c_proj)

        inner = activation(mlp.act, cache.linear(norm(block.ln_2, x, dtype), mlp.c_fc))  # (R,4D)
        x = x + cache.linear(inner, mlp.c_proj)
    return cache.linear(norm(body.ln_f, x, dtype), decoder.lm_head)


def _attend(q: Tensor, kv: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """q (G,K,d), scaled, over keys and values (2,G,n,d) to mixed values (R,D)."""
    scores = torch.bmm(q, kv[0].mT)  # (G,K,n)
    if bias is not None:
        scores.view(bias.shape[0], heads, *bias.shape[2:]).add_(bias)
    mixed = torch.bmm(torch.softmax(scores, -1), kv[1])
    return mixed.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2).flatten(0, 1)


def _to_heads(rows: Tensor, images: int, count: int, heads: int) -> Tensor:
    """(B*n,count*D) -> (count,G,n,d)."""
    split = rows.view(images, -1, count, heads, rows.shape[1] // (count * heads))
    return split.permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)
