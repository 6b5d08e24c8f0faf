"""A disk that is really full: one clear line, and what was there before is whole."""

import csv
import json

import pytest
import pytorch_lightning as pl
import torch

from src.datamodule.caption_table import CaptionedImage
from src.evaluate import write_predictions
from src.metrics.scorer import Scores
from src.utils.errors import UserError
from src.utils.files import write_json
from src.utils.lightning_compat import CsvLogger
from tests.faults.small_disk import fill, small_disk
from tests.faults.tiny import Run, differences, with_dropout
from tests.faults.whole_files import half_written, leftovers
from tests.tasks.running import run_train


class FillDisk(pl.Callback):
    """Fills a disk in an optimizer step."""

    def __init__(self, folder, step):
        self.folder, self.step = folder, step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            fill(self.folder)


@pytest.mark.slow
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tiny_checkpoint, flickr_folder, tmp_path):
    base = with_dropout(tiny_checkpoint, tmp_path / "base")
    whole = Run(base, flickr_folder, tmp_path / "whole", max_epochs=2)
    with small_disk(tmp_path / "disk", 20_000) as disk:
        with pytest.raises(UserError, match=r"last\.ckpt cannot be written \(.*free some space, then resume") as caught:
            Run(base, flickr_folder, disk / "cut", more=(FillDisk(disk, 6),), max_epochs=2)
        assert "\n" not in str(caught.value)
        assert torch.load(disk / "cut" / "last.ckpt", weights_only=True)["global_step"] == 6
        (disk / "filler").unlink()
        assert (half_written(disk), leftovers(disk)) == ([], [])
        resumed = Run(base, flickr_folder, disk / "on", disk / "cut" / "last.ckpt", max_epochs=2)
        assert differences(whole.end(), resumed.end()) == []


def test_metrics_predictions_and_curves_that_find_no_room_leave_those_before(tmp_path, caplog):
    image = CaptionedImage("a.jpg", "/a.jpg", ("a dog",), "a.jpg")
    scores = Scores({}, {}, [{"bleu_4": 0.5, "rouge_l": 0.5, "cider_d": 0.5}])
    with small_disk(tmp_path / "disk", 200) as disk:
        table, numbers, logger = disk / "predictions.csv", disk / "metrics.json", CsvLogger(str(disk / "csv"))
        write_predictions(table, [image], {"a.jpg": "a dog"}, scores)
        write_json(numbers, {"val/loss": 1.0})
        logger.log_metrics({"a": 0.0}, 0)
        logger.write()
        before, filler = table.read_bytes(), fill(disk)
        with pytest.raises(UserError, match=r"predictions\.csv cannot be written \(No space left on device\)"):
            write_predictions(table, [image], {"a.jpg": "a cat " * 2000}, scores)
        with pytest.raises(UserError, match=r"metrics\.json cannot be written \(No space left on device\)"):
            write_json(numbers, {"val/loss": 2.0})
        for step in range(1, 1000):
            logger.log_metrics({"a": 0.5}, step)
        logger.write()
        assert "its rows are kept" in caplog.text
        assert (table.read_bytes(), json.loads(numbers.read_text())) == (before, {"val/loss": 1.0})
        assert half_written(disk) == leftovers(disk) == []
        filler.unlink()
        logger.write()
        with (disk / "csv" / "metrics.csv").open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1000))


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_in_a_line_and_leaves_no_half_file(tiny_checkpoint, flickr_folder, tmp_path):
    with small_disk(tmp_path / "disk", 1300) as disk:
        with pytest.raises(UserError, match=r"disk is full|cannot be written") as caught:
            run_train(disk / "logs/train/runs/one", tiny_checkpoint, flickr_folder, "zero_shot=false")
        assert "\n" not in str(caught.value)
        assert half_written(disk) == []
