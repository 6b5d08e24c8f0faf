"""Habits of lightning-hydra-template's users: a config composed outside the entries can be instantiated and run."""

import os
import subprocess
import sys
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
            config.model.generation.max_length = 6
            config.trainer.max_epochs = 1
            config.trainer.accelerator = "cpu"
            config.extras.print_config = config.extras.enforce_tags = False
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


@pytest.mark.slow
def test_train_and_eval_run_on_a_composed_config(composed_config):
    config = composed_config("train")
    config.trainer.limit_train_batches = 0.01
    assert train(config)["train/loss"] > 0
    checkpoint = Path(config.paths.output_dir) / "checkpoints" / "last.ckpt"
    assert evaluate_checkpoint(composed_config("eval", f"ckpt_path={checkpoint}"))["test/loss"] > 0


@pytest.mark.slow
def test_a_sweep_over_all_experiments_runs_without_any_downloaded_data(tmp_path):
    small = ("+datamodule.num_images=20", "+datamodule.image_size=32", "test=false")
    command = [sys.executable, "train.py", "-m", "experiment=glob(*,exclude=scst)", "debug=fdr", *small]
    command += [f"paths.data_dir={tmp_path}/data", f"paths.log_dir={tmp_path}/logs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    experiments = {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")} - {"scst"}
    assert len(list(tmp_path.glob("logs/debug/multiruns/*/*/metrics.json"))) == len(experiments)
