"""GPT-2 one token at a time, for all beams of all images: the step that transformers' search asks for.

Beams of an image share what does not tell them apart: keys and values of its patches are computed and held
once per image, and a beam that is copied copies no keys and values of its tokens. All beams of an image form
one batch entry of attention; a mask says which of the tokens written so far lie on whose path.

B images, K beams of an image, R = B * K rows, P patches, H heads, d width of a head, G = B * H, D width.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GPT2LMHeadModel

from src.models.packed_gpt2 import activation, conv1d, norm
from src.models.packed_linear import linear


class BeamCache(EncoderDecoderCache):
    """What the search keeps between steps; to transformers, a cache that it may reorder.

    patches: per block (2,G,P,d), keys and values of the patches.
    tokens: per block (2,G,max_length*K,d); the K tokens of step t stand at t*K to t*K+K-1.
    on_path: bool (R,max_length*K), which of these tokens a beam consists of.
    """

    def __init__(self, patches: list[Tensor], images: int, beams: int, max_length: int) -> None:
        super().__init__(DynamicCache(), DynamicCache())
        first = patches[0]
        shape = (2, first.shape[1], max_length * beams, first.shape[3])
        self.patches = patches
        self.tokens = [first.new_empty(shape) for _ in patches]
        self.on_path = torch.zeros(images * beams, shape[2], dtype=torch.bool, device=first.device)
        self.images, self.beams, self.steps = images, beams, 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that each beam has gone through."""
        return self.steps

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row r goes on from row beam_idx[r]; i64 (R)."""
        self.on_path = self.on_path[beam_idx]

    @property
    def is_compileable(self) -> bool:
        return False

    def open_step(self) -> Tensor:
        """Make room for the next K tokens of each image; returns what to add to scores: (B,1,K,tokens)."""
        rows = torch.arange(len(self.on_path), device=self.on_path.device)
        self.on_path[rows, self.steps * self.beams + rows % self.beams] = True
        self.steps += 1
        seen = self.on_path[:, : self.steps * self.beams].view(self.images, 1, self.beams, -1)
        return torch.zeros_like(seen, dtype=self.patches[0].dtype).masked_fill_(~seen, float("-inf"))


@torch.no_grad()
def open_beams(decoder: GPT2LMHeadModel, states: Tensor, beams: int, max_length: int) -> BeamCache:
    """Keys and values of the patches of every block; states: (B,P,D) in the precision of the products."""
    patches = []
    for block in decoder.transformer.h:
        kv = conv1d(states.flatten(0, 1), block.crossattention.c_attn)  # (B*P,2D)
        patches.append(_to_heads(kv, len(states), 2, block.attn.num_heads))
    return BeamCache(patches, len(states), beams, max_length)


@torch.no_grad()
def next_logits(decoder: GPT2LMHeadModel, ids: Tensor, cache: BeamCache) -> Tensor:
    """Logits (R,V) of the token behind ids, i64 (R), the newest token of each beam."""
    body, dtype = decoder.transformer, cache.patches[0].dtype
    x = body.wte(ids) + body.wpe.weight[cache.steps]  # (R,D)
    bias = cache.open_step()
    for block, patches, tokens in zip(body.h, cache.patches, cache.tokens, strict=True):
        heads, images = block.attn.num_heads, cache.images
        q, *kv = _to_heads(conv1d(norm(block.ln_1, x, dtype), block.attn.c_attn), images, 3, heads)
        end = cache.steps * cache.beams
        tokens[:, :, end - cache.beams : end] = torch.stack(kv)
        mixed = _attend(q * block.attn.scaling, tokens[:, :, :end], bias, heads)
        x = x + conv1d(mixed, block.attn.c_proj)

        cross = block.crossattention
        (q,) = _to_heads(conv1d(norm(block.ln_cross_attn, x, dtype), cross.q_attn), images, 1, heads)
        x = x + conv1d(_attend(q * cross.scaling, patches, None, heads), cross.c_proj)

        inner = activation(block.mlp.act, conv1d(norm(block.ln_2, x, dtype), block.mlp.c_fc))
        x = x + conv1d(inner, block.mlp.c_proj)
    head = decoder.lm_head
    return linear(norm(body.ln_f, x, dtype), head, head.weight, head.bias)


def _attend(q: Tensor, kv: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """q (G,K,d), scaled, over keys and values (2,G,n,d) to mixed values (R,D)."""
    scores = torch.bmm(q, kv[0].mT)  # (G,K,n)
    if bias is not None:
        scores.view(bias.shape[0], heads, *bias.shape[2:]).add_(bias)
    mixed = torch.bmm(torch.softmax(scores, -1), kv[1])
    return mixed.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2).flatten(0, 1)


def _to_heads(rows: Tensor, images: int, parts: int, heads: int) -> Tensor:
    """(B*n,parts*D) -> (parts,G,n,d)."""
    split = rows.view(images, -1, parts, heads, rows.shape[1] // (parts * heads)).permute(2, 0, 3, 1, 4)
    return split.contiguous().flatten(1, 2)
