"""Compute, write and read attention.json: where in the image the decoder attended for each word of a caption.

A list of {"image_id", "words": [str] (W), "height": h, "width": w, "region", "heat"}: heat is a base64 string of
h*w bytes per word; region is [left, top, right, bottom] of the encoder's visible crop, as fractions of the image.

P patches, D width, H and W an image's height and width in pixels.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.utils.files import atomic_write
from src.utils.logging import visible

if TYPE_CHECKING:
    from src.datamodule.caption_table import CaptionedImage
    from src.models.attention_maps import WordAttention
    from src.models.vit_gpt2 import VitGpt2


def write_cross_attention_maps(
    model: "VitGpt2", images: "Sequence[CaptionedImage]", captions: Mapping[str, str], path: Path, most: int
) -> int:
    """Write the maps of `captions` (by image_id) for a random sample of at most `most` images.

    Returns how many were written: unreadable images are skipped, and without a square grid of patches in the
    encoder there are none and no file.
    """
    import torch

    from src.datamodule.images.decode import UnreadableImage, load_image
    from src.models.attention_maps import visible_crop, word_attention
    from src.report.run_files import random_order

    images = [image for image in images if image.image_id in captions]
    transform = model.processor.image
    entries: list[dict[str, Any]] = []
    model.eval()
    for image in (images[index] for index in random_order(len(images))[:most]):
        try:
            pixels = load_image(image.path, image.box, image.span)  # uint8 (3,H,W)
        except UnreadableImage:
            continue  # already counted and logged by the loader of the test images
        with torch.no_grad():
            states = model.model.encoder(transform(pixels)[None].to(model.device)).last_hidden_state  # (1,P,D)
            found = word_attention(model.model, model.processor, states, [captions[image.image_id]])
        if found is None:
            return 0
        words = replace(found[0], region=visible_crop(transform, *pixels.shape[1:]))
        entries.append(encode_attention(image.image_id, words))
    with atomic_write(path) as file:
        json.dump(entries, file)
    return len(entries)


def encode_attention(image_id: str, attention: "WordAttention") -> dict[str, Any]:
    """Return one entry of attention.json; heat f32 (W,h,w) in 0..1 becomes one byte per patch."""
    heat = (attention.heat * 255).round().clamp(0, 255).byte().numpy()  # (W,h,w)
    return {
        "image_id": image_id,
        "words": [visible(word) for word in attention.words],
        "height": int(heat.shape[1]),
        "width": int(heat.shape[2]),
        "region": list(attention.region),
        "heat": [base64.b64encode(grid.tobytes()).decode() for grid in heat],
    }


def read_attention(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of attention.json by image_id, heat still encoded.

    Raises ValueError, TypeError or KeyError where the file is not JSON, or a field is missing or of another size.
    """
    maps = {entry["image_id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    for image_id, entry in maps.items():
        entry["words"] = [visible(word) for word in entry["words"]]
        sizes = [len(base64.b64decode(grid, validate=True)) for grid in entry["heat"]]
        if sizes != [entry["height"] * entry["width"]] * len(entry["words"]) or len(entry["region"]) != 4:
            raise ValueError(f"the attention map of {image_id!r} does not fit its words")
    return maps
