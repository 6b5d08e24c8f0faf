"""The same images in every layout give the same table."""

import io
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from src.datamodule.caption_table import CaptionTable
from src.datamodule.images.decode import check_images, load_image
from src.datamodule.readers.folder import read_folder
from tests.datamodule.layouts import LAYOUTS, Sample


def make_samples(count: int = 50) -> list[Sample]:
    """Images of one color each with two captions; one caption has commas and quotes."""
    samples = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (5 * number, 100, 200)).save(file, "PNG")
        texts = (f'Image {number}, "first" caption', f"second caption of image {number}")
        samples.append(Sample(f"pic_{number:03}.png", file.getvalue(), texts))
    return samples


def content(table: CaptionTable) -> dict[str, tuple[tuple[str, ...], int]]:
    """File name -> captions and red value of the first pixel."""
    return {
        PurePosixPath(image.image_id).name: (image.captions, load_image(image.path, span=image.span)[0, 0, 0].item())
        for image in table.images
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_table(tmp_path: Path, name: str) -> None:
    samples = make_samples()
    LAYOUTS[name](tmp_path / "data", samples)
    table = read_folder(tmp_path / "data")
    assert table.skipped == []
    assert content(table) == {sample.name: (sample.captions, 5 * k) for k, sample in enumerate(samples)}
    assert (len(table.images), table.excluded, check_images(table.images)) == (50, {}, {})
    splits = [image.split for image in table.images]
    official = any(word in name for word in ("splits", "karpathy", "with_split", "roco"))
    order = ["test"] * 5 + ["train"] * 40 + ["val"] * 5 if "splits" in name or name == "roco" else []
    assert sorted(map(str, splits)) == (
        sorted(order or ["train"] * 40 + ["val"] * 5 + ["test"] * 5) if official else ["None"] * 50
    )
