"""The encoder cut in two: a frozen backbone, whose output never changes, and the head of blocks that train.

B images, H x W pixels, P patches + class token, D width.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from src.models.freezing import find_blocks
from src.utils.hardware import page_out


class FeatureInput(nn.Module):
    """Stands where the embeddings were and gives the features that `EncoderHead` laid down.

    grid: rows and columns of patches where the encoder asks its embeddings for them (Swin), else None.
    """

    def __init__(self, embeddings: Any, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.patch_embeddings = embeddings.patch_embeddings  # encoders look up its dtype
        self.grid = grid
        self.features: Tensor | None = None

    def forward(self, *args: object, **kwargs: object) -> Tensor | tuple[Tensor, tuple[int, int]]:
        assert self.features is not None
        return self.features if self.grid is None else (self.features, self.grid)


class EncoderHead(nn.Module):
    """The blocks after the backbone and the final layer norm, run by the encoder's own forward."""

    def __init__(self, encoder: Any, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = image_size

    def forward(self, features: Tensor) -> Tensor:
        """Features (B,P,D) to the encoder's last hidden states (B,P,D)."""
        entry: Any = self.encoder.embeddings
        dtype = entry.patch_embeddings.projection.weight.dtype
        # Autocast takes features of any precision; without it those kept in another one have to be turned.
        entry.features = features if torch.is_autocast_enabled(features.device.type) else features.to(dtype)
        # Only the shape of the pixels is asked for: one zero, seen as (B,3,H,W).
        shape = torch.zeros((), dtype=dtype, device=features.device).expand(
            len(features), 3, *self.image_size
        )
        try:
            return self.encoder(shape).last_hidden_state
        finally:
            entry.features = None


class FrozenBackbone(nn.Module):
    """Embeddings and all frozen blocks."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B,3,H,W) to features (B,P,D)."""
        return self.encoder(pixel_values).last_hidden_state

    def page_out(self) -> None:
        """Let the system have the weights' memory while kept features serve; pixels would read them again."""
        for weight in self.parameters():
            page_out(weight)


def frozen_blocks(encoder: nn.Module) -> int:
    """How many blocks at the beginning are frozen; 0 where the embeddings, or what blocks share, train."""
    blocks = find_blocks(encoder)
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    for name, weight in encoder.named_parameters():
        if weight.requires_grad and id(weight) not in inside and not name.startswith("layernorm."):
            return 0
    trains = [any(weight.requires_grad for weight in block.parameters()) for block in blocks]
    return trains.index(True) if any(trains) else len(blocks)


def split_encoder(
    encoder: nn.Module, image_size: tuple[int, int]
) -> tuple[FrozenBackbone, EncoderHead] | None:
    """Cut the encoder behind its frozen blocks; the parts share its weights.

    Returns None where there is no backbone: the first block trains, or the blocks are neither one list behind the
    embeddings (ViT, DeiT, BEiT) nor stages of blocks (Swin). Then pixels go through the whole encoder.
    """
    cut = frozen_blocks(encoder)
    if not cut or not hasattr(encoder, "layernorm"):
        return None
    if list(getattr(encoder, "layers", [])) == find_blocks(encoder):
        backbone, head, grid = *_cut_list(encoder, cut), None
    elif _has_stages(encoder):
        backbone, head, grid = _cut_stages(encoder, cut, image_size)
    else:
        return None
    backbone.layernorm = nn.Identity()
    head.embeddings = FeatureInput(backbone.embeddings, grid)
    return FrozenBackbone(backbone.eval()), EncoderHead(head, image_size)


def _cut_list(encoder: nn.Module, cut: int) -> tuple[Any, Any]:
    """Two faces of an encoder with one list of blocks: the first `cut` and the others."""
    backbone, head = strip_pooler(encoder), strip_pooler(encoder)
    backbone.layers, head.layers = nn.ModuleList(backbone.layers[:cut]), nn.ModuleList(head.layers[cut:])
    return backbone, head


def _has_stages(encoder: Any) -> bool:
    stages = getattr(getattr(encoder, "encoder", None), "layers", [])
    blocks = [block for stage in stages for block in getattr(stage, "blocks", [])]
    return bool(blocks) and blocks == find_blocks(encoder)


def _cut_stages(
    encoder: nn.Module, cut: int, image_size: tuple[int, int]
) -> tuple[Any, Any, tuple[int, int]]:
    """The same for stages of blocks, and the grid of patches at the cut, inside a stage or at its beginning."""
    backbone, head = strip_pooler(encoder), strip_pooler(encoder)
    stages, patch = list(head.encoder.layers), head.embeddings.patch_embeddings.patch_size
    grid = -(-image_size[0] // patch[0]), -(-image_size[1] // patch[1])
    number = 0
    while cut >= len(stages[number].blocks) and number + 1 < len(stages):
        cut -= len(stages[number].blocks)
        grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2  # what leaves a stage is half as high and wide
        number += 1
    before, after = face(stages[number]), face(stages[number])
    before.blocks, after.blocks = nn.ModuleList(before.blocks[:cut]), nn.ModuleList(after.blocks[cut:])
    before.downsample = None
    for part, kept in ((backbone, [*stages[:number], before]), (head, [after, *stages[number + 1 :]])):
        part.encoder = face(part.encoder)
        part.encoder.layers = nn.ModuleList(kept)
    return backbone, head, grid


def face(module: nn.Module) -> Any:
    """A second object of the same module: shares every weight, its parts can be exchanged."""
    other: Any = copy.copy(module)
    other._modules = dict(module._modules)
    return other


def strip_pooler(encoder: nn.Module) -> Any:
    """A second face of the same encoder, sharing all weights, that does no work for the unused pooler."""
    other = face(encoder)
    if getattr(other, "pooler", None) is not None:
        other.pooler = None
    return other
