"""The config check reports all mistakes at once, each with its key, what was expected and what to do."""

from dataclasses import dataclass

import pytest
from omegaconf import OmegaConf

from src.utils.config_check import check_config, find_problems
from src.utils.errors import ConfigErrors, UserError
from tests.utils.composing import composed


def problems(*overrides):
    return find_problems(composed(*overrides))


@pytest.mark.parametrize("name", ["train", "eval"])
def test_defaults_are_right(name):
    assert find_problems(composed(name=name)) == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("datamodule.batch_size=0", "=0; expected a value greater than or equal to 1; set datamodule.batch_size"),
        ("datamodule.num_workers=1.5", "integer"),
        ("datamodule.pin_memory=1", "boolean"),
        ("datamodule.split_ratios=[0.8,0.2]", "at least 3 items"),
        ("datamodule.max_skipped=2", "less than or equal to 1"),
        ("+datamodule.batchsize=3", "did you mean datamodule.batch_size?"),
        ("+datamodule.zzz=3", "remove datamodule.zzz"),
        ("model.train=everything", "expected 'last_blocks'"),
        ("trainer.precision=fp8", "expected 'auto', '32-true'"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp; expected 'auto', 'ddp'"),
        ("+trainer.barebones=true", "trainer.barebones=true; expected False"),
        ("trainer.accelerator=abacus", "expected 'cpu', 'gpu'"),
        ("trainer.limit_val_batches=-1", "greater than or equal to 0"),
        ("callbacks.early_stopping.mode=low", "'min' or 'max'"),
        ("callbacks.model_checkpoint.mode=max", "expected min for a loss"),
        ("seed=abc", "seed=abc; expected a valid integer"),
        ("train=maybe", "boolean"),
        ("logger=wandb", "logger=wandb needs the package wandb"),
        ("logger=aim", "logger=aim needs the package aim"),
        ("logger=neptune", "NeptuneLogger; expected a class or function that exists"),
        ("model._target_=src.models.vit_gpt2.VitGpt3", "expected a class or function that exists"),
        ("task_name=???", "task_name=???; expected a value; set task_name"),
        ("task_name=${no.such.key}", "task_name=${no.such.key}; Interpolation key"),
    ],
)
def test_each_mistake_is_one_line(override, expected):
    found = problems(override)
    assert len(found) == 1, found
    assert expected in found[0]


def test_all_at_once():
    config = composed("datamodule.batch_size=0", "trainer.precision=fp8", "seed=abc")
    with pytest.raises(ConfigErrors, match="3 settings are wrong") as caught:
        check_config(config)
    assert isinstance(caught.value, UserError)
    assert len(caught.value.problems) == 3


def test_seed_zero_null_and_group_options_are_fine():
    assert problems("seed=0") == []
    assert problems("seed=null", "model.seed=0", "datamodule.seed=0") == []
    assert problems("trainer.precision=32", "trainer.devices=auto", "model.lr_scheduler=null") == []


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
    assert line == "callback.inherited=two; expected a valid integer; set callback.inherited"


def test_integer_keys_of_a_callback_are_accepted():
    kind = "pytorch_lightning.callbacks.GradientAccumulationScheduler"
    schedule = (f"+callbacks.schedule._target_={kind}", "+callbacks.schedule.scheduling={0:4,2:1}")
    assert problems(*schedule) == []
