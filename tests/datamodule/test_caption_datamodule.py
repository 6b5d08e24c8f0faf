"""Reads once, splits once, logs what was lost, and returns batches of pixels or of features."""

import csv
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src.datamodule.caption_table import CaptionedImage
from src.utils.errors import UserError
from tests.datamodule.tiny import TableDataModule, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[CaptionedImage]:
    return write_images(tmp_path_factory.mktemp("images"), 20)


def names_of(loader) -> list[str]:
    return [name for batch in loader for name in batch.image_ids]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_setup_reads_once_and_splits_by_split_seed_not_by_the_seed_of_the_run(images: list[CaptionedImage]) -> None:
    first, second = TableDataModule(images, seed=1), TableDataModule(images, seed=2)
    other = TableDataModule(images, split_seed=9)
    for data in (first, second, other):
        for stage in ("fit", "validate", "test", None):
            data.setup(stage)
        assert data.reads == 1
    assert first.splits == second.splits != other.splits
    assert sum(map(len, first.splits.values())) == 20


def test_batches_of_each_split(images: list[CaptionedImage]) -> None:
    data, seen = TableDataModule(images), {}
    for split in ("train", "val", "test"):
        loader = getattr(data, f"{split}_dataloader")()
        batch = next(iter(loader))
        assert (batch.pixel_values.shape[1:], batch.pixel_values.dtype) == ((3, 8, 8), torch.float32)
        seen[split] = names_of(loader)
    expected = {split: [image.image_id for image in found] for split, found in data.splits.items()}
    assert {split: sorted(names) for split, names in seen.items()} == expected
    assert seen["val"] == expected["val"]
    assert seen["train"] != expected["train"]


def test_unreadable_headers_are_skipped_rows_and_too_many_stop_the_run(tmp_path: Path) -> None:
    images = write_images(tmp_path, 10)
    Path(images[2].path).write_text("<html>")
    images[3] = replace(images[3], image_id="-=3.png")  # csv files hold text as it is
    data = TableDataModule(images, max_skipped=0.2)
    data.setup()
    data.write_files(tmp_path / "enough")
    found = [(row["image_id"], row["reason"]) for row in read_csv(tmp_path / "enough" / "skipped.csv")]
    assert found == [("002.png", "unreadable image")] * 2
    rows = read_csv(tmp_path / "enough" / "splits.csv")
    assert {row["image_id"] for row in rows} == {image.image_id for image in images} - {"002.png"}
    assert list(dict.fromkeys(row["split"] for row in rows)) == ["train", "val", "test"]
    data = TableDataModule(images)
    with pytest.raises(UserError, match=r"10\.0% of the rows cannot be used.*unreadable image"):
        data.setup()
    data.write_files(tmp_path / "run")
    assert [row["image_id"] for row in read_csv(tmp_path / "run" / "skipped.csv")] == ["002.png"] * 2
    assert not (tmp_path / "run" / "splits.csv").exists()


def test_num_samples_counts_pairs_and_does_not_hide_unreadable_images(tmp_path: Path) -> None:
    """Of the 4 pairs that are taken 2 are unreadable: 50%, though that is 2 of the file's 80 rows."""
    images = write_images(tmp_path, 40)
    data = TableDataModule(images, num_samples=13)
    data.setup()
    assert (data.table.num_pairs, len(data.table.images)) == (13, 7)
    Path(images[1].path).write_text("<html>")
    with pytest.raises(UserError, match=r"50\.0% of the rows cannot be used.*001\.png', unreadable image"):
        TableDataModule(images, num_samples=4, max_skipped=0.4).setup()


def test_a_file_that_breaks_after_the_check_is_replaced_or_skipped_and_listed(tmp_path: Path) -> None:
    data = TableDataModule(write_images(tmp_path, 20))
    data.setup()
    trained, tested = data.splits["train"][0], data.splits["test"][0]
    for image in (trained, tested):
        Path(image.path).write_bytes(Path(image.path).read_bytes()[:44])
    names = names_of(data.train_dataloader())
    assert len(names) == len(data.splits["train"])
    assert trained.image_id not in names
    assert names_of(data.test_dataloader()) == [image.image_id for image in data.splits["test"][1:]]
    assert set(data.unreadable) == {trained.image_id, tested.image_id}
    assert trained.path in data.unreadable[trained.image_id]


def test_captions_are_tokenized_once_and_the_log_counts_those_cut(images: list[CaptionedImage], caplog) -> None:
    data = TableDataModule(images, max_caption_tokens=15)
    with caplog.at_level(logging.INFO):
        first, second = data.train_dataloader(), data.train_dataloader()
    assert first.items.tokens is second.items.tokens
    assert caplog.text.count("captions exceed 15 tokens and are cut") == 1


def test_memory_is_pinned_as_set_else_for_a_run_on_cuda(images: list[CaptionedImage]) -> None:
    for device, setting, pins in (("cuda", None, True), ("cpu", None, False), ("cpu", True, True)):
        data = TableDataModule(images, pin_memory=setting)
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
        assert data.pins_memory == pins
