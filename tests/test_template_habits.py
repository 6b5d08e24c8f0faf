"""Habits of lightning-hydra-template's users: a config composed outside the entries can be instantiated and run."""

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import open_dict
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

from src.tasks.eval import evaluate_checkpoint
from src.tasks.train import train
from tests.utils.composing import ROOT


@pytest.fixture
def composed_config(tmp_path, flickr_folder, tiny_checkpoint, monkeypatch):
    """Return a function that composes an entry's config and points it to small data, as the template's tests do."""
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    before = HydraConfig.instance().cfg

    def build(name: str, *overrides: str):
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            config = compose(f"{name}.yaml", list(overrides), return_hydra_config=True)
        with open_dict(config):
            config.paths.output_dir = config.paths.log_dir = str(tmp_path)
            config.paths.work_dir = os.getcwd()
            config.datamodule.data_dir = str(flickr_folder)
            config.datamodule.num_workers = 0
            config.datamodule.pin_memory = False
            config.model.checkpoint = str(tiny_checkpoint)
            config.model.max_length = 6
            config.trainer.max_epochs = 1
            config.trainer.accelerator = "cpu"
            config.extras.print_config = False
            config.logger = None
        HydraConfig.instance().set_config(config)
        return config

    yield build
    HydraConfig.instance().cfg = before


def test_data_model_trainer_and_callbacks_are_instantiated_as_composed(composed_config):
    config = composed_config("train")
    assert isinstance(instantiate(config.datamodule), LightningDataModule)
    assert isinstance(instantiate(config.model), LightningModule)
    assert isinstance(instantiate(config.trainer), Trainer)
    assert all(isinstance(instantiate(node), Callback) for node in config.callbacks.values())


@pytest.mark.parametrize(
    "limits", [{"fast_dev_run": True}, {"limit_train_batches": 0.01, "limit_val_batches": 0.01}]
)
def test_train_and_eval_run_on_a_composed_config(composed_config, tmp_path, limits):
    config = composed_config("train")
    with open_dict(config):
        config.trainer.update(limits)
    metrics = train(config)
    assert metrics["train/loss"] > 0
    if "fast_dev_run" in limits:
        return
    checkpoint = Path(config.paths.output_dir) / "checkpoints" / "last.ckpt"
    assert checkpoint.is_file()
    scored = composed_config("eval", f"ckpt_path={checkpoint}")
    assert evaluate_checkpoint(scored)["test/loss"] > 0
