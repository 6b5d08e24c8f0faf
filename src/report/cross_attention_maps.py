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

MAX_PATCHES = 64 * 64


def write_cross_attention_maps(
    model: "VitGpt2",
    images: "Sequence[CaptionedImage]",
    captions: Mapping[str, str],
    path: Path,
    most: int = 200,
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
    """Return the entries of attention.json by image_id, still encoded.

    Raises:
        ValueError: the file is not JSON, or a field of an entry is missing, of another type or size.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    try:
        return {entry["image_id"]: entry for entry in map(_checked, entries)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a list of attention maps ({error!r})") from error


def _checked(entry: Any) -> dict[str, Any]:
    height, width = int(entry["height"]), int(entry["width"])
    words, heat = [visible(str(word)) for word in entry["words"]], [str(grid) for grid in entry["heat"]]
    region = [min(1.0, max(0.0, float(side))) for side in entry["region"]]
    sizes = {len(base64.b64decode(grid, validate=True)) for grid in heat}
    fits = len(words) == len(heat) and len(region) == 4
    if not fits or not 0 < height * width <= MAX_PATCHES or not sizes <= {height * width}:
        raise ValueError(f"the attention map of {entry['image_id']!r} does not fit its words")
    return {"image_id": str(entry["image_id"]), "words": words, "height": height, "width": width, "region": region,
            "heat": heat}  # fmt: skip
