"""Compute, write and read attention.json: where in the image the decoder attended for each word of a caption.

A list of {"image_id", "words": [str] (W), "height": h, "width": w, "region", "heat"}: heat is a base64 string of
h*w bytes per word; region is [left, top, right, bottom] of the encoder's visible crop, as fractions of the image.

B images, P patches, D width, H and W an image's height and width in pixels.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

    from src.datamodule.caption_table import CaptionedImage
    from src.models.attention_maps import WordAttention
    from src.models.vit_gpt2 import VitGpt2

MAX_IMAGES = 200
MAX_PATCHES = 64 * 64
BATCH_SIZE = 8


def write_cross_attention_maps(
    model: "VitGpt2",
    images: "Sequence[CaptionedImage]",
    captions: Mapping[str, str],
    path: Path,
    most: int = MAX_IMAGES,
    seed: int = 0,
) -> int:
    """Write the maps of `captions` (by image_id) for a random sample of at most `most` images.

    Returns how many were written: unreadable images are skipped, and without a square grid of patches in the
    encoder there are none and no file.
    """
    from src.report.run_files import random_order

    images = [image for image in images if image.image_id in captions]
    sample = [images[index] for index in random_order(len(images), seed)[:most]]
    model.eval()
    entries: list[dict[str, Any]] = []
    for start in range(0, len(sample), BATCH_SIZE):
        loaded = _load(sample[start : start + BATCH_SIZE])
        if not loaded:
            continue
        found = _attend(model, list(loaded.values()), [captions[image_id] for image_id in loaded])
        if found is None:
            return 0
        entries += [encode_attention(image_id, words) for image_id, words in zip(loaded, found, strict=True)]
    with atomic_write(path) as file:
        json.dump(entries, file)
    return len(entries)


def _load(images: "Sequence[CaptionedImage]") -> "dict[str, Tensor]":
    """Return uint8 (3,H,W) by image_id of the readable images."""
    from src.datamodule.images.decode import UnreadableImage, load_image

    loaded = {}
    for image in images:
        try:
            loaded[image.image_id] = load_image(image.path, image.box, image.span)
        except UnreadableImage:
            continue  # already counted and logged by the loader of the test images
    return loaded


def _attend(
    model: "VitGpt2", images: "Sequence[Tensor]", captions: Sequence[str]
) -> "list[WordAttention] | None":
    """Return the maps of images uint8 (3,H,W) with the encoder's visible crop."""
    import torch

    from src.models.attention_maps import visible_crop, word_attention

    transform = model.processor.image
    with torch.no_grad():
        pixels = torch.stack([transform(image) for image in images]).to(model.device)  # (B,3,h,w)
        states = model.model.encoder(pixels).last_hidden_state  # (B,P,D)
        found = word_attention(model.model, model.processor, states, captions)
    if found is None:
        return None
    regions = [visible_crop(transform, *image.shape[1:]) for image in images]
    return [replace(words, region=region) for words, region in zip(found, regions, strict=True)]


def encode_attention(image_id: str, attention: "WordAttention") -> dict[str, Any]:
    """Return one entry of attention.json; heat f32 (W,h,w) in 0..1 becomes one byte per patch."""
    heat = (attention.heat * 255).round().clamp(0, 255).byte().numpy()  # (W,h,w)
    return {
        "image_id": image_id,
        "words": list(attention.words),
        "height": int(heat.shape[1]),
        "width": int(heat.shape[2]),
        "region": list(attention.region),
        "heat": [base64.b64encode(grid.tobytes()).decode() for grid in heat],
    }


def read_attention(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of attention.json by image_id, still encoded.

    Raises:
        ValueError: the file is not JSON or not of the form above.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise ValueError("expected a list")
    return {entry["image_id"]: entry for entry in map(_checked, entries)}


def _checked(entry: Any) -> dict[str, Any]:
    """Return the entry with the known fields alone.

    Raises:
        ValueError: a field is missing, of another type or size.
    """
    try:
        height, width = int(entry["height"]), int(entry["width"])
        checked: dict[str, Any] = {
            "image_id": str(entry["image_id"]),
            "words": [str(word) for word in entry["words"]],
            "height": height,
            "width": width,
            "region": [min(1.0, max(0.0, float(side))) for side in entry["region"]],
            "heat": [str(grid) for grid in entry["heat"]],
        }
        sizes = {len(base64.b64decode(grid, validate=True)) for grid in checked["heat"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an entry is not an attention map ({error!r})") from error
    fits = len(checked["words"]) == len(checked["heat"]) and len(checked["region"]) == 4
    if not fits or not 0 < height * width <= MAX_PATCHES or not sizes <= {height * width}:
        raise ValueError(f"the attention map of {checked['image_id']!r} does not fit its words")
    return checked
