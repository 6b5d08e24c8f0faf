"""Reads once, splits once, tells what was lost, and hands out batches of pixels or of features."""

import csv
import inspect
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.utils.errors import UserError
from tests.datamodule.tiny import DrawnDataModule, draw, preprocessing


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[CaptionedImage]:
    return draw(tmp_path_factory.mktemp("images"), 20)


def connected(images: list[CaptionedImage], **settings) -> DrawnDataModule:
    data = DrawnDataModule(images, **settings)
    data.processor = preprocessing()
    return data


class Features:
    num_views = 1

    def get(self, image_id: str, view: int = 0) -> torch.Tensor:
        return torch.full((2, 3), float(image_id[:3]))


def test_setup_reads_and_splits_once(images: list[CaptionedImage]) -> None:
    data = DrawnDataModule(images)
    data.setup("fit")
    splits = data.splits
    for stage in ("validate", "test", None):
        data.setup(stage)
        assert data.splits is splits
    assert data.reads == 1
    names = [{image.image_id for image in split} for split in data.splits.values()]
    assert min(len(split) for split in names) > 0
    assert len(set.union(*names)) == 20


def test_the_split_does_not_depend_on_the_seed_of_the_run(images: list[CaptionedImage]) -> None:
    first, second = DrawnDataModule(images, seed=1), DrawnDataModule(images, seed=2)
    other = DrawnDataModule(images, split_seed=9)
    for data in (first, second, other):
        data.setup()
    assert first.splits == second.splits
    assert first.splits != other.splits


def test_num_samples_counts_pairs(images: list[CaptionedImage]) -> None:
    data = DrawnDataModule(images, num_samples=13)
    data.setup()
    assert data.table is not None
    assert data.table.num_pairs == 13
    assert len(data.table.images) == 7


def test_batches_of_each_part(images: list[CaptionedImage]) -> None:
    data = connected(images)
    seen = {}
    for split in ("train", "val", "test"):
        batches = list(getattr(data, f"{split}_dataloader")())
        seen[split] = [name for batch in batches for name in batch.image_ids]
        assert batches[0].pixel_values.shape[1:] == (3, 8, 8)
        assert batches[0].pixel_values.dtype == torch.float32
        assert batches[0].features is None
    assert {split: sorted(names) for split, names in seen.items()} == {
        split: sorted(image.image_id for image in images) for split, images in data.splits.items()
    }
    assert seen["val"] == [image.image_id for image in data.splits["val"]]
    assert seen["train"] != [image.image_id for image in data.splits["train"]]


def test_features_take_the_place_of_pixels_in_loaders_made_later(images: list[CaptionedImage]) -> None:
    data = connected(images, num_workers=None)
    before = data.val_dataloader()
    data.features = Features()
    after = data.val_dataloader()
    assert (before.num_workers > 0, after.num_workers) == (True, 0)
    batch = next(iter(after))
    assert batch.pixel_values is None
    assert batch.features is not None
    assert batch.features[:, 0, 0].tolist() == [float(name[:3]) for name in batch.image_ids]


def test_unreadable_headers_count_as_skipped_rows(tmp_path: Path) -> None:
    images = draw(tmp_path, 10)
    Path(images[2].path).write_text("<html>")
    data = DrawnDataModule(images, max_skipped=0.2)
    data.setup()
    assert data.table is not None
    assert len(data.table.images) == 9
    assert [(row.image_id, row.reason) for row in data.table.skipped] == [("002.png", "unreadable image")] * 2
    data.write_files(tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "skipped.csv").open()))
    assert [row["reason"] for row in rows] == ["unreadable image"] * 2
    assert "002.png" in rows[0]["detail"]
    splits = list(csv.DictReader((tmp_path / "run" / "splits.csv").open()))
    assert len(splits) == 9


def test_too_many_unreadable_headers_stop_the_run(tmp_path: Path) -> None:
    images = draw(tmp_path, 10)
    Path(images[2].path).write_text("<html>")
    with pytest.raises(UserError, match=r"10\.0% of the rows cannot be used.*unreadable image"):
        DrawnDataModule(images).setup()
    unchecked = DrawnDataModule(images, check_images=False)
    unchecked.setup()
    assert sum(len(split) for split in unchecked.splits.values()) == 10


def test_a_file_that_breaks_after_the_check_is_replaced_or_left_out_and_listed(tmp_path: Path) -> None:
    images = draw(tmp_path, 20)
    data = connected(images)
    data.setup()
    trained, tested = data.splits["train"][0], data.splits["test"][0]
    for image in (trained, tested):
        Path(image.path).write_bytes(Path(image.path).read_bytes()[:44])
    names = [name for batch in data.train_dataloader() for name in batch.image_ids]
    assert len(names) == len(data.splits["train"])
    assert trained.image_id not in names
    names = [name for batch in data.test_dataloader() for name in batch.image_ids]
    assert names == [image.image_id for image in data.splits["test"][1:]]
    assert set(data.unreadable) == {trained.image_id, tested.image_id}
    assert trained.path in data.unreadable[trained.image_id]


def test_cut_captions_are_logged_once(images: list[CaptionedImage], caplog: pytest.LogCaptureFixture) -> None:
    data = connected(images, max_caption_tokens=15)
    with caplog.at_level(logging.INFO):
        (data.train_dataloader(), data.train_dataloader())
    lines = [record.getMessage() for record in caplog.records if "are cut" in record.getMessage()]
    assert len(lines) == 1
    assert f"of {2 * len(data.splits['train'])} captions" in lines[0]


def test_processes_share_the_images(images: list[CaptionedImage]) -> None:
    seen: dict[str, list[str]] = {"train": [], "val": []}
    steps = []
    for rank in (0, 1):
        data = connected(images, split_ratios=(0.75, 0.25, 0.0))
        cpu = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, num_nodes=1, overfit_batches=0, strategy=cpu
        )
        for split, names in seen.items():
            loader = getattr(data, f"{split}_dataloader")()
            names += [name for batch in loader for name in batch.image_ids]
        steps.append(len(data.train_dataloader()))
    assert steps[0] == steps[1]
    assert sorted(seen["train"]) == sorted(image.image_id for image in data.splits["train"])
    assert sorted(seen["val"]) == sorted(image.image_id for image in data.splits["val"])


def test_loaders_need_a_checkpoint_first(images: list[CaptionedImage]) -> None:
    with pytest.raises(RuntimeError, match="need a processor"):
        DrawnDataModule(images).train_dataloader()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("batch_size", 0), ("captions_per_image", 0), ("num_samples", 0), ("num_workers", -1)],
)
def test_numbers_below_the_least_are_mistakes(setting: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"datamodule\.{setting}={value}; expected {value + 1} or more"):
        DrawnDataModule([], **{setting: value})


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_memory_is_pinned_only_for_a_run_on_cuda(
    images: list[CaptionedImage], device: str, pinned: bool
) -> None:
    strategy = SimpleNamespace(root_device=torch.device(device))
    for setting, expected in ((None, pinned), (True, True)):
        data = connected(images, pin_memory=setting)
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, num_nodes=1, strategy=strategy)
        assert data.val_dataloader().pin_memory == expected


def test_a_data_set_is_a_function_that_returns_a_table(images: list[CaptionedImage]) -> None:
    data = CaptionDataModule(lambda: CaptionTable(images, [], 40), preprocessing(), num_workers=0)
    data.setup()
    assert sorted(name for batch in data.val_dataloader() for name in batch.image_ids) == sorted(
        image.image_id for image in data.splits["val"]
    )


def test_num_samples_does_not_hide_unreadable_images(tmp_path: Path) -> None:
    """Of the 4 pairs that are taken 2 are unreadable: 50%, though that is 2 of the file's 80 rows."""
    images = draw(tmp_path, 40)
    Path(images[1].path).write_text("<html>")
    with pytest.raises(UserError, match=r"50\.0% of the rows cannot be used.*001\.png', unreadable image"):
        DrawnDataModule(images, num_samples=4, max_skipped=0.4).setup()


def test_a_refusal_leaves_skipped_csv(tmp_path: Path) -> None:
    images = draw(tmp_path, 10)
    Path(images[2].path).write_text("<html>")
    data = DrawnDataModule(images)
    with pytest.raises(UserError):
        data.setup()
    data.write_files(tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "skipped.csv").open()))
    assert [row["image_id"] for row in rows] == ["002.png"] * 2
    assert not (tmp_path / "run" / "splits.csv").exists()


def test_a_whole_folder_can_be_scored_as_test_split(images: list[CaptionedImage]) -> None:
    data = connected(images, split_ratios=[0, 0, 1])
    assert [name for batch in data.test_dataloader() for name in batch.image_ids] == [
        image.image_id for image in images
    ]
    assert list(data.train_dataloader()) == list(data.val_dataloader()) == []


def test_the_config_names_every_setting_with_the_default_of_the_class() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "datamodule" / "base.yaml").read_text())
    settings = inspect.signature(CaptionDataModule).parameters
    defaults = {
        name: item.default for name, item in settings.items() if name not in ("reader", "processor", "seed")
    }
    assert {name: value for name, value in config.items() if name != "seed"} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()
    }


def test_captions_are_tokenized_once_however_often_loaders_are_made(images, monkeypatch) -> None:
    data = connected(images)
    data.setup()
    tokenized: list[str] = []
    original = type(data.processor).tokenize

    def tokenize(self, texts):
        tokenized.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(type(data.processor), "tokenize", tokenize)
    data.train_dataloader()
    count = len(tokenized)
    data.train_dataloader()
    assert count == len(tokenized) > 0
