"""The data module of shards: finds, parts and counts them, and trains from them."""

import csv
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from src.datamodule.collate import CaptionBatch
from src.datamodule.webdataset import ShardImages, WebDatasetDataModule
from src.utils.errors import UserError
from tests.datamodule.shard_files import add, write_shard
from tests.datamodule.tiny import preprocessing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five shards of 12 samples."""
    for number in range(5):
        write_shard(tmp_path / "data" / f"{number:05}.tar", range(number * 12, number * 12 + 12))
    return tmp_path / "data"


def module(folder: Path, **settings: Any) -> WebDatasetDataModule:
    data = WebDatasetDataModule(folder, **{"batch_size": 5, "num_workers": 0, **settings})
    data.connect(preprocessing())
    return data


def test_shards_are_parted_by_ratios_once(folder: Path) -> None:
    data = module(folder, split_ratios=(0.6, 0.2, 0.2))
    data.setup()
    splits = data.splits
    data.setup("test")
    assert data.splits is splits
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [36, 12, 12]
    ids = [image.image_id for part in data.splits.values() for image in part]
    assert len(set(ids)) == 60
    other = module(folder, split_ratios=(0.6, 0.2, 0.2), split_seed=5, seed=9)
    other.setup()
    assert other.shards != data.shards


def test_folders_tell_the_parts(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        write_shard(tmp_path / part / "0.tar", range(number * 10, number * 10 + 2 + number))
    data = module(tmp_path)
    data.setup()
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [2, 3, 4]
    assert data.splits["val"][0].image_id == "val/0.tar/000000010"
    assert [image.image_id for image in data.splits["val"][1:]][-1] == "val/0.tar/000000012"


def test_patterns_tell_the_parts(folder: Path) -> None:
    data = module(folder, train_shards="0000[0-2].tar", val_shards="00003.tar", test_shards="00004.tar")
    data.setup()
    assert [shard.name for shard in data.shards["train"]] == ["00000.tar", "00001.tar", "00002.tar"]


def test_batches_of_each_part(folder: Path) -> None:
    data = module(folder, split_ratios=(0.6, 0.2, 0.2), shuffle_window=8)
    for part in ("train", "val", "test"):
        loader = getattr(data, f"{part}_dataloader")()
        found = [name for batch in loader for name in batch.image_ids]
        expected = [image.image_id for image in data.splits[part]]
        assert sorted(found) == sorted(expected)
        assert (found == expected) is (part != "train")
    assert data.test_dataloader().num_workers == 0


def test_processes_share_the_samples(folder: Path) -> None:
    seen, steps = [], []
    for rank in (0, 1):
        data = module(folder, split_ratios=(0.6, 0.2, 0.2))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, num_nodes=1)
        loader = data.train_dataloader()
        seen += [name for batch in loader for name in batch.image_ids]
        steps.append(len(loader))
    assert sorted(seen) == sorted(image.image_id for image in data.splits["train"])
    assert steps[0] == steps[1]


def test_files_of_the_run_name_shards_and_images(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(folder / "00005.tar", "w") as tar:
        add(tar, "1.txt", b"no picture")
    data = module(folder, max_skipped=0.5)
    data.write_files(tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "splits.csv").open()))
    assert {row["image_id"] for row in rows if row["split"] == "train"} == {
        f"{shard.name}/*" for shard in data.shards["train"]
    }
    assert sum(row["split"] == "test" for row in rows) == len(data.splits["test"])
    skipped = list(csv.DictReader((tmp_path / "run" / "skipped.csv").open()))
    assert [(row["image_id"], row["reason"]) for row in skipped] == [
        ("00005.tar", "no picture or no caption")
    ]


def test_too_many_incomplete_samples_stop_the_run(folder: Path) -> None:
    with tarfile.open(folder / "00005.tar", "w") as tar:
        for number in range(6):
            add(tar, f"{number}.txt", b"no picture")
    with pytest.raises(UserError, match=r"9\.1% of 66 samples .*00005\.tar; .*max_skipped=0\.01"):
        module(folder).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_shards": "*.tar"}, "train_shards alone"),
        ({"train_shards": "*.tar", "val_shards": "x*.tar", "test_shards": "*.tar"}, r"named 'x\*\.tar'"),
        ({"readers": 0}, r"datamodule\.readers=0"),
        ({"shuffle_window": 0}, r"datamodule\.shuffle_window=0"),
        ({"num_samples": 9}, r"datamodule\.num_samples=9"),
        ({"fold": 1}, r"datamodule\.fold=1"),
        ({"data_dir": "nowhere"}, "data_dir='nowhere' does not exist"),
    ],
)
def test_mistakes(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WebDatasetDataModule(**{"data_dir": folder, **settings}).setup()


def test_too_few_shards_for_the_parts(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", range(9))
    with pytest.raises(UserError, match=r"1 shards .* expected at least 3"):
        module(tmp_path).setup()
    (tmp_path / "a.tar").unlink()
    with pytest.raises(UserError, match="0 shards"):
        module(tmp_path).setup()


def test_no_sample_to_train_on(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
        with tarfile.open(tmp_path / part / "a.tar", "w") as tar:
            add(tar, "1.txt", b"no picture")
    with pytest.raises(UserError, match="no sample in the train shards"):
        module(tmp_path, max_skipped=1.0).setup()


def test_images_of_shards_are_a_sequence(folder: Path) -> None:
    data = module(folder)
    data.setup()
    images = ShardImages(data.shards["train"])
    assert len(list(images)) == len(images)
    assert images[0].captions[0].startswith("picture ")


class Recorder(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps: list[tuple[str, ...]] = []

    def training_step(self, batch: CaptionBatch, _: int) -> torch.Tensor:
        self.steps.append(tuple(batch.image_ids))
        return (self.weight * batch.input_ids.sum()).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_lightning_resumes_in_mid_epoch(folder: Path, tmp_path: Path, workers: int) -> None:
    def fit(resume: Path | None = None) -> Recorder:
        keep = pl.callbacks.ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            callbacks=[] if resume else [keep],
            enable_checkpointing=not resume,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        recorder = Recorder()
        data = module(folder, split_ratios=(0.6, 0.2, 0.2), num_workers=workers, readers=2)
        trainer.fit(recorder, data, ckpt_path=resume, weights_only=resume is not None)
        return recorder

    whole = fit()
    per_epoch = len(whole.steps) // 2
    assert len({name for step in whole.steps[:per_epoch] for name in step}) == 36
    for step in (3, per_epoch, per_epoch + 2):
        resumed = fit(tmp_path / "kept" / f"step={step}.ckpt")
        assert resumed.steps == whole.steps[step:]
        assert torch.equal(resumed.weight, whole.weight)
