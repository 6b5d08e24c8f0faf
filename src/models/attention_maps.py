"""Cross-attention maps of the words of generated captions: which patches the decoder attended to.

B images, T tokens, P patches, D width, W words of a caption, h x w the grid of patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import VisionEncoderDecoderModel as Model

from src.datamodule.processor import ImageTransform, Processor
from src.models.kernels.attention import eager_attention
from src.models.loss import project_states

LAST_LAYERS = 4  # of the decoder; the first ones attend to nothing in particular
Region = tuple[float, float, float, float]  # left, top, right, bottom as fractions of an image: see `visible_crop`
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
MOST_SPECIAL_TOKENS = 2  # before the patches: ViT and BEiT have a class token, DeiT one for distillation too


@dataclass(frozen=True, slots=True)
class WordAttention:
    """A caption's words and the attention of each per patch."""

    words: list[str]
    heat: Tensor  # f32 (W,h,w) on the CPU, at most 1
    region: Region = WHOLE


@torch.no_grad()
def word_attention(
    model: Model, processor: Processor, states: Tensor, captions: Sequence[str], region: Region = WHOLE
) -> list[WordAttention] | None:
    """Merge the cross-attention of B captions from tokens to words, under encoder states (B,P,De), in eval mode.

    Returns None where these are no square grid of patches, or the decoder gives no attention.
    """
    side = grid_side(states.shape[1], model.encoder.config)
    tokens = [processor.encode_caption(caption) for caption in captions]
    attention = None if side is None else cross_attention(model, processor, states, tokens)  # (B,T,P)
    if side is None or attention is None:
        return None
    grids = attention[:, :, -side * side :].unflatten(-1, (side, side)).float().cpu()  # (B,T,h,w)
    return [merge_words(processor, ids, grid[: len(ids)], region) for ids, grid in zip(tokens, grids, strict=True)]


def grid_side(num_states: int, encoder_config: Any = None) -> int | None:
    """Side of the square of patches among P states with up to two special tokens, or None.

    Examples: 197 = 1 + 14 x 14 -> 14; 198 (DeiT) -> 14; 49 (Swin) -> 7; 52 -> None.
    """
    sizes = (getattr(encoder_config, name, None) for name in ("image_size", "patch_size"))
    if any(isinstance(size, list | tuple) and len(set(size)) > 1 for size in sizes):
        return None  # 2 x 8 patches would pass for 4 x 4
    for patches in range(num_states, max(0, num_states - MOST_SPECIAL_TOKENS - 1), -1):
        if math.isqrt(patches) ** 2 == patches:
            return math.isqrt(patches)
    return None


def cross_attention(
    model: Model, processor: Processor, states: Tensor, tokens: Sequence[Sequence[int]]
) -> Tensor | None:
    """(B,T,P): row t is the attention of the position that generates token t, mean over heads and last layers."""
    inputs = [torch.tensor([processor.start_id, *ids[:-1]], device=states.device) for ids in tokens]
    mask = pad_sequence([torch.ones_like(ids) for ids in inputs], True)  # (B,T)
    settings = {"encoder_hidden_states": project_states(model, states), "use_cache": False}
    with eager_attention(model.decoder):
        ids = pad_sequence(inputs, True, processor.pad_id)
        layers = model.decoder(ids, attention_mask=mask, output_attentions=True, **settings).cross_attentions
    if not layers or layers[-1] is None:
        return None
    return torch.stack(layers[-LAST_LAYERS:]).float().mean(dim=(0, 2))  # (L,B,heads,T,P) -> (B,T,P)


def visible_crop(transform: ImageTransform, height: int, width: int) -> Region:
    """Left, top, right, bottom of what resizing and cropping keep of an image, as fractions of its sides.

    Example: resized to 256 x 256, of which the middle 224 x 224 are kept: (0.0625, 0.0625, 0.9375, 0.9375).
    """
    if transform.crop is None:
        return WHOLE
    resized: Any = transform.resize
    if not isinstance(resized, tuple):
        shortest = min(height, width)
        resized = (resized or shortest) * height / shortest, (resized or shortest) * width / shortest
    top, left = (max(0.0, (1 - kept / side) / 2) for kept, side in zip(transform.crop, resized, strict=True))
    return left, top, 1 - left, 1 - top


def merge_words(processor: Processor, ids: Sequence[int], grids: Tensor, region: Region) -> WordAttention:
    """Average the grids f32 (n,h,w) of each word's n token ids and scale every word's to a largest value of 1."""
    words = processor.decode(ids).split()
    if not words:
        return WordAttention([], grids.new_zeros(0, *grids.shape[1:]), region)
    groups: dict[int, list[int]] = {}  # token positions by word: the last one of the text up to the token
    for position in range(len(ids)):
        number = len(processor.decode(ids[: position + 1]).split())
        groups.setdefault(min(max(number, 1), len(words)) - 1, []).append(position)
    heat = torch.stack([grids[group].mean(dim=0) for group in groups.values()])  # (W,h,w)
    heat = heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
    return WordAttention([words[number] for number in groups], heat, region)
