"""What stands between a config and its objects."""

import sys
import warnings

import pytest
from omegaconf import OmegaConf

from src.callbacks.caption_samples import CaptionSamples
from src.tasks.building import build_trainer, quiet
from src.utils.errors import UserError

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "precision": "32-true"}


def config(**groups):
    return OmegaConf.create({"trainer": TRAINER, "extras": {"ignore_warnings": False}, **groups})


def test_the_scorer_reaches_the_callback_that_scores():
    samples = {"_target_": "src.callbacks.caption_samples.CaptionSamples"}
    scorer = object()
    trainer = build_trainer(config(callbacks={"samples": samples, "none": None, "text": {"a": 1}}), scorer)
    found = [callback for callback in trainer.callbacks if isinstance(callback, CaptionSamples)]
    assert [callback.scorer for callback in found] == [scorer]
    assert trainer.loggers == []


@pytest.mark.parametrize("precision", ["16-mixed", 16])
def test_fp16_on_a_cpu_is_refused(precision):
    with pytest.raises(
        UserError, match=f"trainer.precision={precision} on a CPU; expected bf16-mixed or 32-true"
    ):
        build_trainer(config(trainer=TRAINER | {"precision": precision}))


def test_a_logger_whose_package_is_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    logger = {"wandb": {"_target_": "tests.tasks.test_building.needs_wandb"}}
    with pytest.raises(
        UserError, match=r"wandb needs the package wandb, which is not installed; .*pip install wandb"
    ):
        build_trainer(config(logger=logger))


def needs_wandb():
    """Fails as Lightning's logger does."""
    raise ModuleNotFoundError("no wandb", name="wandb")


def test_another_fault_of_a_logger_is_not_hidden():
    logger = {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "nonsense": 1}}
    with pytest.raises(Exception, match="nonsense"):
        build_trainer(config(logger=logger))


@pytest.mark.parametrize(("ignored", "left"), [(False, 1), (True, 0)])
def test_noise_is_kept_off_the_screen_and_more_on_request(ignored, left):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        quiet(config(extras={"ignore_warnings": ignored}))
        warnings.warn("The dataloader does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert len(told) == left
