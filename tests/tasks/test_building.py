"""What is an error or adapted before training: devices, strategies, callbacks, loggers, limits."""

from types import SimpleNamespace

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar

from src.tasks.building import build_data, build_trainer, check_monitors, check_trainer, fit_to_data
from src.utils.errors import UserError
from tests.utils.composing import composed, job

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "precision": "32-true", "devices": 1}


def config(**groups):
    return OmegaConf.create({"trainer": TRAINER, "extras": {"ignore_warnings": False}, **groups})


@pytest.mark.parametrize("accelerator", ["gpu", "mps"])
def test_a_device_that_is_missing_is_refused_in_a_line(monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"trainer.accelerator={accelerator}; expected such a device.*set trainer=auto"):
        check_trainer(config(trainer=TRAINER | {"accelerator": accelerator}))


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_several_launched_processes_without_a_strategy_are_refused(monkeypatch, variable):
    monkeypatch.setenv(variable, "2")
    with pytest.raises(UserError, match=r"2 processes were launched.*set trainer=ddp trainer\.devices=2"):
        check_trainer(config())
    check_trainer(config(trainer=TRAINER | {"strategy": "ddp", "devices": 2}))


@pytest.mark.parametrize("name", ["GradientAccumulationScheduler", "EMAWeightAveraging"])
def test_callbacks_whose_effect_would_be_lost_are_refused(name):
    callbacks = {"extra": {"_target_": f"pytorch_lightning.callbacks.{name}"}, "none": None}
    with pytest.raises(UserError, match=f"callbacks.extra={name} .*~callbacks.extra"):
        check_trainer(config(callbacks=callbacks))


def test_several_processes_in_a_multirun_are_refused(tmp_path):
    with job(tmp_path):
        hydra = HydraConfig.instance().cfg.hydra
        with read_write(hydra), open_dict(hydra):
            hydra.mode = RunMode.MULTIRUN
        with pytest.raises(UserError, match=r"trainer\.strategy=ddp in a multirun .* set trainer=default"):
            check_trainer(config(trainer=TRAINER | {"strategy": "ddp"}))


def test_callbacks_given_to_the_trainer_are_used_too():
    more = [{"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/loss"}]
    trainer = build_trainer(config(trainer=TRAINER | {"callbacks": more}))
    assert [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]
    assert trainer.progress_bar_callback is None  # Lightning's own would be written to files, too


@pytest.mark.parametrize(
    ("settings", "callback", "kind"),
    [
        ({}, "LearningRateMonitor", LearningRateMonitor),  # ~logger
        ({"enable_progress_bar": False}, "RichProgressBar", RichProgressBar),
        ({"enable_checkpointing": False}, "ModelCheckpoint", ModelCheckpoint),
    ],
)
def test_callbacks_that_lightning_would_refuse_are_left_out(settings, callback, kind):
    callbacks = {"one": {"_target_": f"pytorch_lightning.callbacks.{callback}"}}
    trainer = build_trainer(config(trainer=TRAINER | settings, callbacks=callbacks, logger=[]))
    assert not [one for one in trainer.callbacks if isinstance(one, kind)]
    assert trainer.loggers == []


@pytest.mark.parametrize("monitor", ["val_loss", "val/cider_d"])
def test_a_metric_that_nothing_logs_is_refused_before_training(monitor):
    callback = EarlyStopping(monitor)
    with pytest.raises(UserError, match=rf"monitor={monitor} of EarlyStopping; .*monitor=val/loss"):
        check_monitors([callback, ModelCheckpoint(monitor="val/loss")])

    class Own(EarlyStopping):
        """A callback from outside, beside which other metrics may be logged."""

    check_monitors([Own("val/own"), callback])


@pytest.mark.parametrize(
    ("settings", "accepted"), [([], True), (["callbacks.caption_samples.every_n_epochs=2"], False)]
)
def test_checkpoint_and_early_stopping_follow_the_monitor_if_each_epoch_logs_it(settings, accepted, tmp_path):
    with job(tmp_path, "monitor=val/cider_d", "trainer=default", "logger=none", *settings) as composed_config:
        composed_config.trainer.precision = "32-true"
        if not accepted:
            with pytest.raises(UserError, match=r"monitor=val/cider_d of .*monitor=val/loss, or caption each epoch"):
                build_trainer(composed_config)
            return
        callbacks = build_trainer(composed_config).callbacks
    found = [one for one in callbacks if isinstance(one, EarlyStopping | ModelCheckpoint)]
    assert [(one.monitor, one.mode) for one in found] == [("val/cider_d", "max")] * 2


def fitted(trainer=None, batch_size=1, **counts):
    """The trainer after a look at data with so many images a split."""
    settings = {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "limit_test_batches": 1.0, "world_size": 1}
    trainer = SimpleNamespace(**(settings | (trainer or {})))
    images = {"train": 9, "val": 3, "test": 3} | counts
    data = SimpleNamespace(splits=images, num_images=images.__getitem__, batch_size=batch_size)
    fit_to_data(trainer, data, training=True)
    return trainer


def test_a_fraction_of_the_batches_is_at_least_one_batch():
    limits = composed("debug=limit").trainer
    names = [f"limit_{split}_batches" for split in ("train", "val", "test")]
    trainer = fitted({name: limits[name] for name in names}, train=80)
    assert [getattr(trainer, name) for name in names] == [1, 1, 1]
    assert fitted({"limit_train_batches": 0.5}).limit_train_batches == 0.5
    assert fitted({"limit_test_batches": 0.0}).limit_test_batches == 0.0


@pytest.mark.parametrize(
    ("trainer", "counts", "message"),
    [
        ({"world_size": 2}, {"val": 1}, "the val split has 1 images for 2 processes; .*set trainer.devices=1"),
        ({"world_size": 4}, {}, "the val split has 3 images for 4 processes"),
        ({}, {"train": 0}, "no image to train on"),
    ],
)
def test_what_the_data_cannot_fill_is_refused_before_training(trainer, counts, message):
    with pytest.raises(UserError, match=message):
        fitted(trainer, **counts)


def test_data_that_is_refused_leaves_skipped_csv(tiny_checkpoint, tmp_path):
    (tmp_path / "data" / "Images").mkdir(parents=True)
    (tmp_path / "data" / "captions.txt").write_text("image,caption\ngone.jpg,A dog\n")
    words = (f"datamodule.data_dir={tmp_path / 'data'}", f"model.checkpoint={tiny_checkpoint}")
    with pytest.raises(UserError, match=r"line 2, 'gone\.jpg', no image"):
        build_data(composed(*words, f"paths.output_dir={tmp_path / 'run'}"))
    assert "2,gone.jpg,no image" in (tmp_path / "run" / "skipped.csv").read_text()
