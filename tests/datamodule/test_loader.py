"""Batches in order, read ahead in threads, and resumed exactly, alone and within Lightning."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from src.datamodule.caption_dataset import CaptionDataset, CaptionTokens
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.collate import CaptionBatch
from src.datamodule.images.decode import UnreadableImage
from src.datamodule.loader import (
    BatchLoader,
    TrainLoader,
    choose_pinning,
    choose_workers,
    read_ahead,
)
from src.datamodule.processor import Processor
from src.datamodule.sampler import LengthGroupedSampler
from src.utils.errors import UserError
from tests.datamodule.tiny import DrawnDataModule, draw, preprocessing


@pytest.fixture(scope="module")
def words() -> Processor:
    return preprocessing()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[CaptionedImage]:
    return draw(tmp_path_factory.mktemp("pictures"), 22)


def loader(
    pictures: list[CaptionedImage],
    words: Processor,
    workers: int = 0,
    kind: Any = TrainLoader,
    **plan: Any,
) -> Any:
    tokens = CaptionTokens(pictures, words, None)
    lengths = [tokens.packed_length(index) for index in range(len(pictures))]
    items = CaptionDataset(pictures, words.image, tokens, train=kind is TrainLoader, captions_per_image=1)
    return kind(items, LengthGroupedSampler(lengths, 4, **plan), words, num_workers=workers)


def ids(batches: Any) -> list[list[str]]:
    return [batch.image_ids for batch in batches]


def test_what_is_read_ahead_comes_in_order_and_only_a_little_ahead() -> None:
    made: list[int] = []

    def make(key: int) -> int:
        time.sleep(0.002 * (key % 3))
        made.append(key)
        return key

    results = read_ahead(make, range(40), workers=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(made) <= 5 + 2 * 3 + 1
    assert list(results) == list(range(5, 40))
    assert list(read_ahead(make, range(3), workers=0)) == [0, 1, 2]
    assert list(read_ahead(make, [], workers=2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_raised(workers: int) -> None:
    def make(key: int) -> int:
        if key == 3:
            raise UserError("one line; expected; do")
        return key

    results = read_ahead(make, range(9), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"^one line; expected; do$"):
        next(results)


def test_a_loader_that_is_left_ends_its_threads() -> None:
    before = threading.active_count()
    results = read_ahead(lambda key: key, range(1000), workers=3)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_threads_change_nothing(pictures: list[CaptionedImage], words: Processor) -> None:
    alone, threads = list(loader(pictures, words)), list(loader(pictures, words, workers=3))
    assert len(alone) == len(loader(pictures, words)) == 6
    for one, other in zip(alone, threads, strict=True):
        assert one.image_ids == other.image_ids
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.pixel_values, other.pixel_values)
    assert alone[0].pixel_values.dtype == torch.float32


def test_a_mistake_in_a_thread_is_one_line(tmp_path: Path, words: Processor) -> None:
    images = draw(tmp_path, 4)
    for image in images:
        Path(image.path).unlink()
    with pytest.raises(UserError, match="20 pictures in a row") as caught:
        list(loader(images, words, workers=2))
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UnreadableImage)


def test_broken_pictures_are_noted_once_over_epochs(
    tmp_path: Path, words: Processor, caplog: pytest.LogCaptureFixture
) -> None:
    images = draw(tmp_path, 9)
    Path(images[4].path).write_bytes(b"broken")
    training = loader(images, words, workers=2)
    for epoch in range(3):
        training.set_epoch(epoch)
        found = [name for batch in training for name in batch.image_ids]
        assert len(found) == 9
        assert "004.png" not in found
    assert list(training.broken) == ["004.png"]
    assert sum("004.png" in record.getMessage() for record in caplog.records) == 1


def test_a_batch_of_broken_pictures_alone_is_left_out(tmp_path: Path, words: Processor) -> None:
    images = draw(tmp_path, 6)
    for image in images[:4]:
        Path(image.path).unlink()
    testing = loader(images, words, kind=BatchLoader, shuffle=False, equal_steps=False)
    assert ids(testing) == [["004.png", "005.png"]]
    assert len(testing.broken) == 4


def test_pinned_batches(pictures: list[CaptionedImage], words: Processor, monkeypatch) -> None:
    monkeypatch.setattr(CaptionBatch, "pin_memory", lambda batch: "pinned")
    training = loader(pictures, words)
    training.pin_memory = True
    assert set(training) == {"pinned"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", [0, 1, 4, 6])
def test_resumed_between_two_batches(
    pictures: list[CaptionedImage], words: Processor, workers: int, place: int
) -> None:
    whole = loader(pictures, words)
    whole.set_epoch(3)
    expected = [(batch.image_ids, batch.input_ids.tolist()) for batch in whole]

    first = loader(pictures, words, workers)
    first.set_epoch(3)
    batches = iter(first)
    begun = [next(batches).image_ids for _ in range(place)]
    state = first.state_dict()
    second = loader(pictures, words, workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    second.set_epoch(3)
    rest = [(batch.image_ids, batch.input_ids.tolist()) for batch in second]
    assert [name for name, _ in expected] == begun + [name for name, _ in rest]
    assert rest == expected[place:]
    assert len(list(second)) == len(expected)  # the place is used up: an epoch is whole again


def test_a_kept_place_is_forgotten_in_another_epoch(pictures: list[CaptionedImage], words: Processor) -> None:
    training = loader(pictures, words)
    training.load_state_dict({**training.state_dict(), "epoch": 2, "batches": 6})
    training.set_epoch(3)
    assert len(list(training)) == 6


def test_a_place_in_another_order_is_not_kept(
    pictures: list[CaptionedImage], words: Processor, caplog: pytest.LogCaptureFixture
) -> None:
    state = loader(pictures, words).state_dict()
    training = loader(pictures[:-3], words)
    training.load_state_dict({**state, "batches": 2, "broken": {"x": "gone"}})
    assert len(list(training)) == len(training)
    assert "different order" in caplog.text
    assert training.broken == {"x": "gone"}


def test_a_step_that_was_not_finished_is_done_again(pictures: list[CaptionedImage], words: Processor) -> None:
    training = loader(pictures, words)
    batches = iter(training)
    for _ in range(3):
        next(batches)
    training.done = lambda: 2
    assert training.state_dict()["batches"] == 2
    training.done = lambda: None
    assert training.state_dict()["batches"] == 3


@pytest.mark.parametrize(
    ("asked", "pixels", "processes", "cores", "expected"),
    [
        (3, True, 1, 8, 3),
        (0, True, 1, 8, 0),
        (None, False, 1, 8, 0),
        (None, True, 1, 64, 8),
        (None, True, 1, 2, 2),
        (None, True, 2, 4, 2),
        (None, True, 8, 4, 1),
    ],
)
def test_threads_by_the_cores(
    asked: int | None, pixels: bool, processes: int, cores: int, expected: int, monkeypatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert choose_workers(asked, pixels, processes) == expected


def test_fewer_than_no_threads_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"datamodule\.num_workers=-1"):
        choose_workers(-1, True)


def test_pinning_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert choose_pinning(None) is there
    assert choose_pinning(True) is True


class Recorder(pl.LightningModule):
    """Writes down the images of each step, and stops with an error in a step when told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps: list[tuple[int, tuple[str, ...]]] = []
        self.validated: list[str] = []
        self.fail_at = fail_at

    def training_step(self, batch: CaptionBatch, _: int) -> torch.Tensor:
        if self.fail_at == self.global_step:
            raise KeyboardInterrupt
        self.steps.append((self.current_epoch, tuple(batch.image_ids)))
        return (self.weight * batch.input_ids.sum()).sum()

    def validation_step(self, batch: CaptionBatch, _: int) -> None:
        self.validated += batch.image_ids

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(images: list[CaptionedImage], folder: Path, workers: int, resume: Path | None = None, **more: Any):
    module = Recorder(more.pop("fail_at", None))
    data = DrawnDataModule(images, num_workers=workers, split_ratios=(0.8, 0.2, 0.0))
    data.connect(preprocessing())
    keep = pl.callbacks.ModelCheckpoint(
        folder, "{step}", every_n_train_steps=1, save_top_k=-1, save_on_exception=True
    )
    trainer = pl.Trainer(
        **{"max_epochs": 3, "accelerator": "cpu", "logger": False, "callbacks": [keep], **more},
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with contextlib.suppress(SystemExit):  # how Lightning ends an interrupted run
        trainer.fit(module, data, ckpt_path=resume, weights_only=resume is not None)
    return module, trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_lightning_resumes_in_mid_epoch(
    tmp_path: Path, pictures: list[CaptionedImage], workers: int
) -> None:
    whole, _ = fit(pictures, tmp_path / "whole", workers)
    per_epoch = len(whole.steps) // 3
    assert per_epoch == 5
    assert len({name for _, names in whole.steps[:per_epoch] for name in names}) == 18
    assert whole.steps[0][1] != whole.steps[per_epoch][1]
    for step in (2, 5, 8):
        resumed, trainer = fit(pictures, tmp_path / f"{step}", workers, tmp_path / f"whole/step={step}.ckpt")
        assert resumed.steps == whole.steps[step:], step
        assert trainer.global_step == 15
        assert torch.equal(resumed.weight, whole.weight)


def test_a_step_cut_short_is_not_lost(tmp_path: Path, pictures: list[CaptionedImage]) -> None:
    whole, _ = fit(pictures, tmp_path / "whole", 0)
    broken_off, trainer = fit(pictures, tmp_path / "cut", 0, fail_at=7)
    assert broken_off.steps == whole.steps[:7]
    last = tmp_path / "at_7.ckpt"
    trainer.save_checkpoint(last)
    resumed, _ = fit(pictures, tmp_path / "resumed", 0, last)
    assert resumed.steps == whole.steps[7:]
    assert torch.equal(resumed.weight, whole.weight)


def test_overfitting_sees_the_same_batches_each_epoch(tmp_path: Path, pictures: list[CaptionedImage]) -> None:
    module, _ = fit(pictures, tmp_path, 0, overfit_batches=2, callbacks=[], enable_checkpointing=False)
    epochs = [[names for epoch, names in module.steps if epoch == number] for number in range(3)]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]
