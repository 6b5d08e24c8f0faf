"""Find near-duplicate images: copies that were scaled, compressed, brightened or made gray.

An image is compared by its edges: the differences of neighbors in 32 x 32 gray values, scaled to length 1, so that the
product of two images is the correlation of their edges.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, decode_bytes, read_bytes

SIDE = 32
SIMILAR = 0.95  # of a photograph's copies at least 0.96 was measured, of different photographs at most 0.35
BLOCK = 2048  # images compared at once


def find_duplicates(images: Sequence[CaptionedImage], workers: int = 2) -> list[tuple[int, int]]:
    """Return pairs of positions (i < j) of images that look alike. Unreadable and plain images are like no other."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        edges = torch.stack([*pool.map(_edges, images)])
    pairs = []
    for start in range(0, len(edges), BLOCK):
        similarity = edges[start : start + BLOCK] @ edges[start:].T
        pairs += [(start + i, start + j) for i, j in (similarity > SIMILAR).triu(diagonal=1).nonzero().tolist()]
    return pairs


def _edges(image: CaptionedImage) -> Tensor:
    """Return f32 (1984,) of length 1, zeros where the image is unreadable or plain."""
    try:
        pixels = decode_bytes(read_bytes(image.path, image.span), image.path, image.box, side=SIDE)
    except UnreadableImage:
        return torch.zeros(2 * SIDE * (SIDE - 1))
    small = functional.interpolate(pixels[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)
    gray = (small[0] * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=0)  # as JPEG and Pillow weight colors
    edges = torch.cat([gray.diff(dim=0).flatten(), gray.diff(dim=1).flatten()])
    return functional.normalize(edges, dim=0) if gray.std() > 2 else torch.zeros_like(edges)


def group_duplicates(images: Sequence[CaptionedImage], pairs: Sequence[tuple[int, int]]) -> list[CaptionedImage]:
    """Return the images with one group for all that look alike, directly or by way of others."""
    parent = {image.group: image.group for image in images}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    for i, j in pairs:
        first, second = sorted((root(images[i].group), root(images[j].group)))
        parent[second] = first
    return [replace(image, group=root(image.group)) for image in images]
