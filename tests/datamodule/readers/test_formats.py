"""The same images in every layout give the same table."""

import io
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from src.datamodule.caption_table import CaptionTable
from src.datamodule.folder import FolderDataModule
from src.datamodule.images.decode import check_images, load_image
from src.datamodule.readers.folder import read_folder
from src.utils.errors import UserError
from tests.datamodule.layouts import LAYOUTS, Sample, put_images, put_json
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


def test_equal_names_in_the_folders_of_splits_are_told_apart_by_the_split(tmp_path: Path) -> None:
    samples = make_samples(3)
    put_images(tmp_path / "images" / "train", samples[:1])
    put_images(tmp_path / "images" / "test", [samples[1]._replace(name=samples[0].name), samples[2]])
    name = samples[0].name
    (tmp_path / "x.csv").write_text(f"image,caption,split\n{name},one,train\n{name},two,test\n{name},three,\n")
    table = read_folder(tmp_path)
    assert [(image.split, image.captions) for image in table.images] == [("train", ("one",)), ("test", ("two",))]
    assert read_reds(table) == [0, 5]
    assert [row.reason for row in table.skipped] == ["ambiguous image name"]


def read_reds(table: CaptionTable) -> list[int]:
    return [load_image(image.path, span=image.span)[0, 0, 0].item() for image in table.images]


def test_parquet_rows_of_one_name_stay_apart_and_in_one_split(tmp_path: Path) -> None:
    """Folders before the name are kept; a row per caption of an image keeps the image in one group."""
    samples = make_samples(6)
    rows = [
        {"image": {"bytes": s.content, "path": f"{k % 3}/0.png"}, "caption": s.captions[0]}
        for k, s in enumerate(samples)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = read_folder(tmp_path)
    assert len({image.image_id for image in table.images}) == 6
    assert [image.group for image in table.images] == ["0/0.png", "1/0.png", "2/0.png"] * 2
    assert read_reds(table) == [5 * k for k in range(6)]
    for row in rows:
        row["image"]["path"] = "image.png"  # says nothing
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert len({image.group for image in read_folder(tmp_path).images}) == 6


def test_a_damaged_parquet_or_tar_file_is_named(tmp_path: Path) -> None:
    LAYOUTS["parquet_bytes"](tmp_path, make_samples())
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"part-00001\.parquet' cannot be read"):
        read_folder(tmp_path)


def test_official_lists_are_found_for_images_in_a_deeper_folder(tmp_path: Path) -> None:
    samples = make_samples(6)
    put_images(tmp_path / "Flickr8k_Dataset" / "Flicker8k_Dataset", samples)
    rows = [f"{s.name}#{k}\t{text}" for s in samples for k, text in enumerate(s.captions)]
    (tmp_path / "Flickr8k_text").mkdir()
    (tmp_path / "Flickr8k_text" / "Flickr8k.token.txt").write_text("\n".join(rows))
    for name, part in (("train", samples[:3]), ("dev", samples[3:4]), ("test", samples[4:])):
        names = "\n".join(sample.name for sample in part)
        (tmp_path / "Flickr8k_text" / f"Flickr_8k.{name}Images.txt").write_text(names)
    splits = [image.split for image in read_folder(tmp_path).images]
    assert splits == ["train"] * 3 + ["val"] + ["test"] * 2


def test_a_caption_with_commas_before_other_columns_is_no_row(tmp_path: Path) -> None:
    put_images(tmp_path, make_samples(2))
    text = "image,caption,split\npic_000.png,a dog, running,train\npic_001.png,a cat,train\n"
    (tmp_path / "x.csv").write_text(text)
    table = read_folder(tmp_path)
    assert [(row.line, row.reason) for row in table.skipped] == [(2, "malformed line")]
    assert [image.captions for image in table.images] == [("a cat",)]


@pytest.mark.parametrize("line", ["pic_000.png,0,A dog, running", "0,pic_000.png,A dog, running"])
def test_numbers_beside_the_image_are_no_captions(tmp_path: Path, line: str) -> None:
    put_images(tmp_path, make_samples(1))
    (tmp_path / "x.csv").write_text(line)
    assert [image.captions for image in read_folder(tmp_path).images] == [("A dog, running",)]


def test_a_coco_file_without_captions_and_foreign_words_of_splits(tmp_path: Path) -> None:
    LAYOUTS["coco"](tmp_path, make_samples())
    put_json(tmp_path / "annotations" / "captions_test2017.json", {"images": [{"id": 1, "file_name": "x.jpg"}]})
    assert len(read_folder(tmp_path).images) == 50
    LAYOUTS["table_with_split"](tmp_path / "b", make_samples())
    with pytest.raises(UserError, match=r"split_column='caption' of data\.csv holds \["):
        read_folder(tmp_path / "b", split_column="caption")


def test_what_img2dataset_writes_beside_its_files_is_no_captions_file(tmp_path: Path) -> None:
    LAYOUTS["img2dataset_files"](tmp_path, make_samples())
    pq.write_table(pa.Table.from_pylist([{"key": "0", "url": "x", "caption": "y"}]), tmp_path / "00000.parquet")
    assert len(read_folder(tmp_path).images) == 50
