"""Histograms of all that trains, and nothing without TensorBoard."""

import math

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.callbacks.weight_histograms import WeightHistograms
from tests.tiny import make, trainer


@pytest.mark.slow
def test_weights_each_epoch_and_gradients_every_so_many_steps(tmp_path, tiny_checkpoint, flickr_folder):
    module, data = make(tiny_checkpoint, flickr_folder)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer(tmp_path, WeightHistograms(3), max_epochs=2, logger=logger).fit(module, data)  # eight steps
    logger.finalize("success")
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = EventAccumulator(str(file), {"histograms": 0}).Reload()
    found = {tag: events.Histograms(tag) for tag in events.Tags()["histograms"]}
    names = {name.replace(".", "/", 1): weight for name, weight in module.trained_weights().items()}
    assert found.keys() == {f"{kind}/{name}" for kind in ("weights", "weights_gradients") for name in names}
    for name, weight in names.items():
        assert [event.step for event in found[f"weights/{name}"]] == [0, 1, 2]
        assert [event.step for event in found[f"weights_gradients/{name}"]] == [0, 3, 6]
        last = found[f"weights/{name}"][-1].histogram_value
        assert last.num == weight.numel()
        assert math.isclose(last.sum, float(weight.detach().double().sum()), abs_tol=1e-3)


@pytest.mark.slow
def test_without_tensorboard_or_gradients_nothing_is_logged(tmp_path, tiny_checkpoint, flickr_folder):
    module, data = make(tiny_checkpoint, flickr_folder)
    short = {"max_steps": 1, "limit_val_batches": 0}
    trainer(tmp_path, WeightHistograms(1), logger=CSVLogger(tmp_path), **short).fit(module, data)
    assert not list(tmp_path.rglob("events.out.tfevents.*"))
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer(tmp_path, WeightHistograms(None), logger=logger, **short).fit(module, data)
    logger.finalize("success")
    (file,) = tmp_path.glob("events.out.tfevents.*")
    names = EventAccumulator(str(file), {"histograms": 0}).Reload().Tags()["histograms"]
    assert names
    assert all(name.startswith("weights/") for name in names)
