"""A line per epoch wherever a run is started, and a bar of one line on a terminal alone."""

import sys
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from src.callbacks.progress import EpochLog, OneLineBar, duration
from src.models.vit_gpt2 import VitGpt2


def trainer(**settings):
    saver = ModelCheckpoint(monitor="val/cider_d", mode="max")
    saver.best_model_score = torch.tensor(1.2)
    metrics = {"val/loss": torch.tensor(1.0156), "val/cider_d": torch.tensor(1.5), "train/loss_step": torch.tensor(2.0)}
    known = {"max_epochs": 4, "current_epoch": 1, "num_training_batches": 10, "accumulate_grad_batches": 4,
             "max_steps": -1, "num_val_batches": [3], "sanity_checking": False, "is_global_zero": True}  # fmt: skip
    return SimpleNamespace(**known | settings, callback_metrics=metrics, checkpoint_callbacks=[saver])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_have_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("score", "best"), [(1.5, " · best"), (1.1, "")])
def test_an_epoch_is_one_line(caplog, monkeypatch, score, best):
    caplog.set_level("INFO")
    model, callback, seen = create_autospec(VitGpt2, instance=True), EpochLog(), trainer()
    model.train_loss = SimpleNamespace(compute=lambda trainer: 1.02)
    seen.callback_metrics["val/cider_d"] = torch.tensor(score)
    clock = iter((90.0, 100.0, 114.0, 120.0, 134.0))
    monkeypatch.setattr("src.callbacks.progress.time.monotonic", lambda: next(clock))
    callback.on_train_start(seen, model)
    callback.on_train_epoch_start(seen, model)
    callback.on_validation_end(seen, model)
    callback.on_train_epoch_end(seen, model)
    callback.on_train_epoch_start(seen, model)
    callback.on_train_epoch_end(seen, model)
    assert caplog.messages == [
        "steps    4 epochs, 3 steps each",
        f"epoch 2 of 4 · 14 s · loss 1.020 · val 1.016 · CIDEr-D {score:.2f}{best} · about 28 s left",
        "epoch 2 of 4 · 14 s · loss 1.020 · about 28 s left",  # without a validation
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_one_line_of_a_terminal(capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    bar, seen = OneLineBar(), trainer()
    bar.setup(seen, None, "fit")
    for index in range(3):
        bar.on_train_batch_end(seen, None, None, None, index)
    bar.on_validation_batch_end(seen, None, None, None, 0)
    bar.on_validation_end(seen, None)
    bar.on_train_batch_end(seen, None, None, None, 3)
    bar.teardown(seen, None, stage="fit")
    text = capsys.readouterr().err
    assert ("epoch 2 of 4" in text and "validation" in text) == terminal
    assert "\n" not in text
    assert bool(text) == terminal
