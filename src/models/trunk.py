"""The encoder cut in two: a frozen trunk, whose output never changes, and the head of blocks that train.

B images, H x W pixels, P patches + class token, D width.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from src.models.freezing import find_blocks


class FeatureInput(nn.Module):
    """Stands where the embeddings were and gives the features that `EncoderHead` laid down."""

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.patch_embeddings = embeddings.patch_embeddings  # encoders look up its dtype
        self.features: Tensor | None = None

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        assert self.features is not None
        return self.features


class EncoderHead(nn.Module):
    """The blocks after the trunk and the final layer norm, run by the encoder's own forward."""

    def __init__(self, encoder: Any, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = image_size

    def forward(self, features: Tensor) -> Tensor:
        """Features (B,P,D) to the encoder's last hidden states (B,P,D)."""
        entry: Any = self.encoder.embeddings
        entry.features = features
        dtype = entry.patch_embeddings.projection.weight.dtype
        # Only the shape of the pixels is asked for: one zero, seen as (B,3,H,W).
        shape = torch.zeros((), dtype=dtype, device=features.device).expand(
            len(features), 3, *self.image_size
        )
        try:
            return self.encoder(shape).last_hidden_state
        finally:
            entry.features = None


class EncoderTrunk(nn.Module):
    """Embeddings and all frozen blocks."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B,3,H,W) to features (B,P,D)."""
        return self.encoder(pixel_values).last_hidden_state


def split_encoder(
    encoder: nn.Module, num_last: int, image_size: tuple[int, int]
) -> tuple[EncoderTrunk, EncoderHead] | None:
    """Cut the encoder before its last `num_last` blocks; the parts share its weights.

    Returns None where there is no trunk: every block trains, or the blocks are not one flat list behind the
    embeddings (Swin). Then pixels go through the whole encoder.
    """
    layers = getattr(encoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or list(layers) != find_blocks(encoder):
        return None
    if not 0 < num_last < len(layers) or not hasattr(encoder, "layernorm"):
        return None
    cut = len(layers) - num_last
    trunk = without_pooler(encoder)
    trunk.layers, trunk.layernorm = nn.ModuleList(layers[:cut]), nn.Identity()
    head = without_pooler(encoder)
    head.layers, head.embeddings = nn.ModuleList(layers[cut:]), FeatureInput(trunk.embeddings)
    return EncoderTrunk(trunk.eval()), EncoderHead(head, image_size)


def without_pooler(encoder: nn.Module) -> Any:
    """A second face of the same encoder, sharing all weights, that does no work for the unused pooler."""
    face: Any = copy.copy(encoder)
    face._modules = dict(encoder._modules)
    if getattr(face, "pooler", None) is not None:
        face.pooler = None
    return face
