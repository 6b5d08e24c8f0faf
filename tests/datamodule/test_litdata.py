"""Streamed shards: each image once an epoch, val and test as other data, training that resumes exactly."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from src.callbacks.feature_cache import FeatureCache
from src.datamodule.flickr import FlickrDataModule
from src.datamodule.litdata import LitDataModule, write_shards
from src.utils.errors import UserError
from tests.tiny import make, trainer


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(UserError, match=r"expected litdata; run: make setup EXTRAS=stream"):
        LitDataModule("train", "val", None, str(tmp_path)).setup()
    with pytest.raises(UserError, match=r"datamodule.cache_dir=null; expected a folder"):
        LitDataModule("train", "val", None, None)


@pytest.fixture(scope="module")
def table(flickr_folder: Path) -> FlickrDataModule:
    pytest.importorskip("litdata")
    data = FlickrDataModule(flickr_folder, split_seed=3)
    data.setup()
    return data


@pytest.fixture(scope="module")
def shards(table: FlickrDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for split, images in table.splits.items():
        write_shards(images, str(folder / split), num_workers=1, start_method="fork", verbose=False)
    return folder


def streamed(shards: Path, **settings: Any) -> LitDataModule:
    folders = [str(shards / split) for split in ("train", "val", "test")]
    return LitDataModule(*folders, shards / "cache", batch_size=8, num_workers=1, **settings)


@pytest.mark.slow
def test_shards_hold_the_images_and_captions_of_each_split(table, shards, tiny_checkpoint) -> None:
    module, _ = make(tiny_checkpoint, table.data_dir)
    data = streamed(shards, processor=module.processor)
    data.setup()
    assert {split: data.num_images(split) for split in data.splits} == {"train": 32, "val": 4, "test": 4}
    for split in ("val", "test"):
        expected = [(image.image_id, image.captions) for image in table.splits[split]]
        assert [(image.image_id, image.captions) for image in data.splits[split]] == expected
    table.processor = module.processor
    pixels = {name: pixel for batch in table.train_dataloader() for name, pixel in rows(batch)}
    loader = data.train_dataloader()
    epochs = [[row for batch in loader for row in rows(batch)] for _ in range(2)]
    for epoch in epochs:
        assert sorted(name for name, _ in epoch) == sorted(pixels)
        assert all(torch.equal(pixel, pixels[name]) for name, pixel in epoch)
    assert [name for name, _ in epochs[0]] != [name for name, _ in epochs[1]]


def rows(batch: Any) -> list[tuple[str, torch.Tensor]]:
    return list(zip(batch.image_ids, batch.pixel_values, strict=True))


@pytest.mark.slow
def test_training_resumes_where_it_stopped_without_a_feature_cache(shards, table, tiny_checkpoint, tmp_path, caplog):
    weights, files = [], [None, None, str(tmp_path / "last.ckpt")]
    with caplog.at_level(logging.INFO):
        for steps, file in zip((6, 2, 6), files, strict=True):  # four steps an epoch
            module, _ = make(tiny_checkpoint, table.data_dir)
            saving = ModelCheckpoint(tmp_path, filename="{step}", save_last=True, every_n_train_steps=2)
            fit = trainer(
                tmp_path, saving, FeatureCache(str(tmp_path)), max_epochs=-1, max_steps=steps, enable_checkpointing=True
            )
            data = streamed(shards, processor=module.processor)
            fit.fit(module, datamodule=data, ckpt_path=file)
            weights.append({name: value.clone() for name, value in module.model.state_dict().items()})
    assert caplog.text.count("streamed images are not cached") == 3
    assert all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_folder_without_shards_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("litdata")
    with pytest.raises(UserError, match=r"datamodule.val_dir='.*nothing' \("):
        LitDataModule(None, str(tmp_path / "nothing"), None, tmp_path / "cache").setup()
