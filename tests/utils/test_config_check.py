"""The config check reports all mistakes at once, each with its key, what was expected and what to do."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.utils.config_check import check_config, find_problems
from src.utils.errors import ConfigErrors, UserError
from tests.utils.composing import composed, job

DOWNLOAD = "datamodule.download=true"  # the folder may be missing then


def problems(*overrides):
    return find_problems(composed(*overrides))


@pytest.mark.parametrize("name", ["train", "eval"])
def test_defaults_are_right(name):
    needed = DOWNLOAD if name == "train" else "predictions=captions.csv"
    assert find_problems(composed(needed, name=name)) == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("datamodule.batch_size=0", "datamodule.batch_size=0; expected a whole number, 1 image or more"),
        ("datamodule.batch_size=eight", "datamodule.batch_size=eight; expected a whole number"),
        ("datamodule.num_workers=1.5", "datamodule.num_workers=1.5; expected a whole number, 0 threads"),
        ("datamodule.pin_memory=1", "datamodule.pin_memory=1; expected true or false or null"),
        (
            "datamodule.num_samples=0",
            "datamodule.num_samples=0; expected a whole number, 1 image-caption pair",
        ),
        ("datamodule.split_ratios=[0.8,0.1,0.2]", "sum to 1"),
        ("datamodule.split_ratios=[0.8,0.2]", "sum to 1"),
        ("datamodule.split_ratios=[a,0.1,0.1]", "sum to 1"),
        ("datamodule.max_skipped=2", "expected a fraction from 0 to 1"),
        ("datamodule.fold=5", "datamodule.fold=5; expected 0 to 4"),
        ("+datamodule.batchsize=3", "did you mean datamodule.batch_size?"),
        ("+datamodule.zzz=3", "remove datamodule.zzz"),
        ("model.num_beams=0", "1 beam (greedy)"),
        ("model.train=everything", "expected one of last_blocks"),
        ("model.optimizer.lr=high", "model.optimizer.lr=high; expected a number"),
        ("model.lr_scheduler.interval=week", "expected step or epoch"),
        ("trainer.precision=fp8", "trainer.precision=fp8; expected one of auto, 32-true"),
        ("trainer.accelerator=abacus", "expected one of cpu, gpu"),
        ("trainer.accumulate_grad_batches=0", "1 batch or more"),
        ("trainer.limit_val_batches=-1", "expected a fraction up to 1.0 or a number of batches"),
        ("callbacks.early_stopping.mode=low", "expected min or max"),
        ("callbacks.model_checkpoint.mode=max", "expected min, a lower loss is better"),
        ("seed=-1", "seed=-1; expected a whole number from 0"),
        ("seed=abc", "seed=abc; expected a whole number from 0"),
        ("train=maybe", "train=maybe; expected true or false"),
        ("logger=wandb", "logger=wandb needs the package wandb"),
        ("logger=mlflow", "logger=mlflow needs the package mlflow"),
        ("logger=comet", "logger=comet needs the package comet_ml"),
        ("logger=aim", "logger=aim needs the package aim"),
        ("logger=neptune", "logger=neptune; expected a service that exists"),
        ("model._target_=src.models.vit_gpt2.VitGpt3", "expected a class or function that exists"),
        ("task_name=???", "task_name=???; expected a value; set task_name"),
        ("task_name=${no.such.key}", "task_name=${no.such.key}; Interpolation key"),
    ],
)
def test_each_mistake_is_one_line(override, expected):
    found = problems(DOWNLOAD, override)
    assert len(found) == 1, found
    assert expected in found[0]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.precision=16-mixed", "trainer=default"], "a CPU has no fp16"),
        (["trainer.max_epochs=-1"], "expected a limit"),
        (["train=false", "test=false"], "expected something to do"),
    ],
)
def test_contradictions(overrides, expected):
    found = problems(DOWNLOAD, *overrides)
    assert len(found) == 1, found
    assert expected in found[0]


def test_all_at_once():
    config = composed(DOWNLOAD, "datamodule.batch_size=0", "trainer.precision=fp8", "seed=abc")
    with pytest.raises(ConfigErrors, match="3 settings are wrong") as caught:
        check_config(config)
    assert isinstance(caught.value, UserError)
    assert len(caught.value.problems) == 3


def test_seed_zero_null_and_group_options_are_fine():
    assert problems(DOWNLOAD, "seed=0") == []
    assert problems(DOWNLOAD, "seed=null", "model.seed=0", "datamodule.seed=0") == []
    assert problems(DOWNLOAD, "trainer.precision=32", "trainer.devices=auto", "model.lr_scheduler=null") == []


def test_the_nearest_folder_is_named(tmp_path):
    (tmp_path / "flickr8k").mkdir()
    (line,) = problems(f"datamodule.data_dir={tmp_path}/flikr8k")
    assert f"datamodule.data_dir={tmp_path}/flikr8k does not exist" in line
    assert f"did you mean datamodule.data_dir={tmp_path / 'flickr8k'}?" in line
    (line,) = problems(f"datamodule.data_dir={tmp_path}/nothing/at/all")
    assert line.endswith("set datamodule.data_dir=FOLDER")
    assert problems(f"datamodule.data_dir={tmp_path}/flickr8k") == []


def test_a_checkpoint_that_is_not_there(tmp_path):
    with job(tmp_path, DOWNLOAD, f"ckpt_path={tmp_path}/no.ckpt") as config:
        (line,) = find_problems(config)
    assert "no.ckpt" in line
    assert "does not exist" in line


def test_lists_whose_values_are_known_only_in_a_job_are_left_alone():
    config = OmegaConf.create({"names": ["${hydra:runtime.cwd}"], "where": "${hydra:runtime.cwd}"})
    assert find_problems(config) == []


@dataclass
class Parent:
    inherited: int = 1


@dataclass
class Child(Parent):
    own: int | None = None


def test_inherited_fields_of_a_dataclass_are_known():
    node = {"_target_": f"{__name__}.Child", "inherited": 2, "own": 3}
    assert find_problems(OmegaConf.create({"callback": node})) == []
    (line,) = find_problems(OmegaConf.create({"callback": {**node, "inherited": "two"}}))
    assert line == "callback.inherited=two; expected a whole number; set callback.inherited"


def test_a_folder_without_any_parent_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(Path, "is_dir", lambda self: False)
    (line,) = problems("datamodule.data_dir=/no/such/place")
    assert line.endswith("set datamodule.data_dir=FOLDER")


def test_integer_keys_of_a_callback_are_accepted():
    config = composed(
        DOWNLOAD,
        "+callbacks.schedule._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler",
        "+callbacks.schedule.scheduling={0:4,2:1}",
    )
    assert find_problems(config) == []
