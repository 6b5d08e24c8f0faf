"""Near-duplicates are found, reported where they cross splits, and kept together on request."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.duplicates import find_duplicates
from tests.datamodule.tiny import TableDataModule


@pytest.fixture
def images(tmp_path: Path) -> list[CaptionedImage]:
    """Thirty different textures; 30 to 33 are copies of 0 to 3, 34 and 35 are plain."""
    pictures = []
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        pictures.append(Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC))
    pictures += [
        pictures[0].resize((80, 60)), ImageEnhance.Brightness(pictures[1]).enhance(0.85),
        pictures[2].convert("L"), pictures[3].filter(ImageFilter.GaussianBlur(1)),
        Image.new("RGB", (90, 90), "white"), Image.new("RGB", (90, 90), "white"),
    ]  # fmt: skip
    found = []
    for number, picture in enumerate(pictures):
        path = tmp_path / f"{number:02}.jpg"
        picture.save(path, quality=60)
        found.append(CaptionedImage(path.name, str(path), (f"image {number}",), path.name))
    return found


def test_copies_are_found_and_nothing_else(images: list[CaptionedImage]) -> None:
    assert find_duplicates(images) == [(0, 30), (1, 31), (2, 32), (3, 33)]


def test_copies_across_splits_are_reported_and_kept_together_on_request(
    images: list[CaptionedImage], tmp_path: Path, caplog
) -> None:
    for number in range(100):  # a seed that separates the copies
        data = TableDataModule(images, split_seed=number)
        data.setup()
        if len(data.duplicates) >= 2:
            break
    pairs = {frozenset(pair) for pair in data.duplicates.items()}
    assert pairs <= {frozenset((f"{k:02}.jpg", f"{k + 30}.jpg")) for k in range(4)}
    assert "look like images of another split" in caplog.text
    data.write_files(tmp_path)
    with open(tmp_path / "splits.csv", newline="", encoding="utf-8") as file:
        written = {row["image_id"]: row["looks_like"] for row in csv.DictReader(file) if row["looks_like"]}
    assert written == data.duplicates
    together = TableDataModule(images, split_seed=number, group_duplicates=True)
    together.setup()
    assert together.duplicates == {}
    split_of = {image.image_id: name for name, found in together.splits.items() for image in found}
    assert all(split_of[f"{k:02}.jpg"] == split_of[f"{k + 30}.jpg"] for k in range(4))
    assert TableDataModule(images, check_duplicates=False).duplicates == {}
