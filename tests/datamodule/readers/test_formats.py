"""The same images in every layout give the same table."""

import io
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from src.datamodule.caption_table import CaptionTable
from src.datamodule.folder import FolderDataModule
from src.datamodule.images.decode import check_images, load_image
from src.datamodule.readers.folder import read_folder
from tests.datamodule.layouts import LAYOUTS, Sample
from tests.datamodule.tiny import tiny_processor


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


def test_layouts_give_the_same_splits_and_batches(tmp_path: Path) -> None:
    """So the loss is the same; the seed of captions, views and order is the image's name."""
    found = []
    for name in ("kaggle", "parquet_bytes", "coco", "tar_shards"):
        LAYOUTS[name](tmp_path / name, make_samples())
        data = FolderDataModule(tmp_path / name, processor=tiny_processor(), batch_size=4, captions_per_image=1)
        data.setup()
        data.write_files(tmp_path)
        batches = [(batch.image_ids, batch.pixel_values, batch.labels) for batch in data.train_dataloader()]
        found.append(((tmp_path / "splits.csv").read_text(), batches))
    for splits, batches in found[1:]:
        assert splits == found[0][0]
        for (ids, pixels, labels), (first_ids, first_pixels, first_labels) in zip(batches, found[0][1], strict=True):
            assert ids == first_ids
            assert pixels.equal(first_pixels)
            assert labels.equal(first_labels)


def test_one_name_in_two_folders_stays_two_images(tmp_path: Path) -> None:
    samples = make_samples(8)
    for place, part in (("left", samples[:4]), ("right", samples[4:])):
        renamed = [sample._replace(name=f"{k}.png") for k, sample in enumerate(part)]
        for name in ("imagefolder_csv", "tar_shards", "sidecar_txt"):
            LAYOUTS[name](tmp_path / name / place, renamed)
    for name in ("imagefolder_csv", "tar_shards", "sidecar_txt"):
        table = read_folder(tmp_path / name)
        assert len({image.image_id for image in table.images}) == 8
        reds = [load_image(image.path, span=image.span)[0, 0, 0].item() for image in table.images]
        assert [(red, image.captions) for red, image in zip(reds, table.images, strict=True)] == [
            (5 * k, sample.captions) for k, sample in enumerate(samples)
        ]
