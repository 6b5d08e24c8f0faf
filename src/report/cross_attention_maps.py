"""Word maps of some captioned pictures, from picture files to attention.json.

B images, P patches, D width, H, W height and width in pixels.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, load_image
from src.models.attention_maps import WordAttention, seen_region, word_attention
from src.models.vit_gpt2 import VitGpt2
from src.report.attention import write_attention

MOST_PICTURES = 200
BATCH = 8


def write_cross_attention_maps(
    model: VitGpt2,
    images: Sequence[CaptionedImage],
    captions: Mapping[str, str],
    path: Path,
    most: int = MOST_PICTURES,
    seed: int = 0,
) -> int:
    """Write where each word of `captions` (by image_id) looked, for a random sample of at most `most` images.

    Returns how many there are: pictures that cannot be read are left out, and without a square grid of
    patches in the encoder there are none and no file.
    """
    images = [image for image in images if image.image_id in captions]
    sample = random.Random(seed).sample(images, min(most, len(images)))
    model.eval()
    maps: dict[str, WordAttention] = {}
    for start in range(0, len(sample), BATCH):
        loaded = _load(sample[start : start + BATCH])
        if not loaded:
            continue
        found = _attend(model, list(loaded.values()), [captions[image_id] for image_id in loaded])
        if found is None:
            return 0
        maps |= dict(zip(loaded, found, strict=True))
    write_attention(path, maps)
    return len(maps)


def _load(images: Sequence[CaptionedImage]) -> dict[str, Tensor]:
    """uint8 (3,H,W) by image_id, of those that can be read."""
    loaded = {}
    for image in images:
        try:
            loaded[image.image_id] = load_image(image.path, image.box, image.span)
        except UnreadableImage:
            continue  # the loader of the test images has counted and named it
    return loaded


@torch.no_grad()
def _attend(
    model: VitGpt2, pictures: Sequence[Tensor], captions: Sequence[str]
) -> list[WordAttention] | None:
    """Word maps of pictures uint8 (3,H,W), each with the part of the picture that the encoder saw."""
    transform = model.preprocessing.image
    pixels = torch.stack([transform(picture) for picture in pictures]).to(model.device)  # (B,3,h,w)
    states = model.model.encoder(pixels).last_hidden_state  # (B,P,D)
    found = word_attention(model.model, model.preprocessing, states, captions)
    if found is None:
        return None
    regions = [seen_region(transform, *picture.shape[1:]) for picture in pictures]
    return [replace(words, region=region) for words, region in zip(found, regions, strict=True)]
