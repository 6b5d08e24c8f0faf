"""The encoder's frozen blocks and its trained ones, as functions over its list of blocks.

pixels -> embeddings -> blocks[:depth] -> features (cached) -> blocks[depth:] -> layernorm -> encoder states

B images, P patches + class token, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.models.freezing import find_blocks


def count_frozen_blocks(encoder: nn.Module) -> int:
    """How many blocks at the beginning are frozen; 0 where the embeddings, or what all blocks use, train."""
    blocks = find_blocks(encoder)
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    for name, weight in encoder.named_parameters():
        if weight.requires_grad and id(weight) not in inside and not name.startswith("layernorm."):
            return 0
    trains = [any(weight.requires_grad for weight in block.parameters()) for block in blocks]
    return trains.index(True) if any(trains) else len(blocks)


def has_block_list(encoder: Any) -> bool:
    """Whether the encoder is embeddings, one list of blocks and a layer norm (ViT, DeiT, BEiT; not Swin's stages)."""
    return hasattr(encoder, "layernorm") and list(getattr(encoder, "layers", [])) == find_blocks(encoder)


@torch.no_grad()
def backbone_features(encoder: Any, pixel_values: Tensor, depth: int) -> Tensor:
    """Run embeddings and the first `depth` blocks, all frozen: pixels (B,3,H,W) to features (B,P,D)."""
    features = encoder.embeddings(pixel_values)
    settings = _block_settings(encoder, features, pixel_values.shape[-2:])
    for block in encoder.layers[:depth]:
        features = block(features, **settings)
    return features


def run_head(encoder: Any, features: Tensor, depth: int, image_size: tuple[int, int]) -> Tensor:
    """Run the blocks from `depth` on and the layer norm: features (B,P,D) to encoder states (B,P,D).

    Autocast takes features of any precision; without it those cached in another one are converted.
    """
    if not torch.is_autocast_enabled(features.device.type):
        features = features.to(next(encoder.parameters()).dtype)
    settings = _block_settings(encoder, features, image_size)
    for block in encoder.layers[depth:]:
        features = block(features, **settings)
    return encoder.layernorm(features)


def _block_settings(encoder: Any, features: Tensor, image_size: Sequence[int]) -> dict[str, Any]:
    """What BEiT's blocks take beside features: the image's size and the position bias that all of them use."""
    if not hasattr(encoder, "shared_position_bias"):
        return {}
    bias, patch = encoder.shared_position_bias, encoder.config.patch_size
    grid = image_size[0] // patch, image_size[1] // patch
    shared = None if bias is None else bias(grid, interpolate_pos_encoding=False, dim_size=features.shape[1])
    return {"attention_mask": shared, "resolution": tuple(image_size)}
