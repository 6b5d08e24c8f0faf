"""A wrong command line is explained whole."""

import shlex
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from src.utils.entry import normalize_override, optimized_value
from src.utils.errors import UserError
from src.utils.overrides import explain, find_faults, flat_keys, nearest
from src.utils.run_folder import expand_home
from src.utils.task_run import task_run
from tests.utils.composing import job

DOWNLOAD = "datamodule.download=true"


def test_every_fault_of_a_command_line_is_told_at_once():
    words = [
        DOWNLOAD, "model=vit", "trainer.max_epoch=3", "foo", "datamodule=flickr.yaml",
        "trainer.precision=fp8", "~callbacks.nothing", "batch_size=3",
    ]  # fmt: skip
    found = "\n".join(find_faults(words, "train"))
    for told in (
        "foo cannot be read; expected key=value",
        "model=vit; expected one of vit_gpt2, vit_gpt2_tiny",
        "trainer.max_epoch=3; expected a key of the config; did you mean trainer.max_epochs?",
        "~callbacks.nothing; Could not delete",
        "batch_size=3; expected a key of the config; did you mean datamodule.batch_size?",
        "trainer.precision=fp8; expected one of",
    ):
        assert told in found
    assert len(found.splitlines()) == 6


def test_an_option_nearly_right():
    (line,) = find_faults([DOWNLOAD, "model=vit_gtp2"], "train")
    assert "did you mean model=vit_gpt2?" in line


def test_right_overrides_have_no_fault():
    words = [DOWNLOAD, "logger=none.yaml", "+new.key=1", "~callbacks.early_stopping", "hydra.run.dir=x", "-m"]
    assert find_faults(words, "train") == []


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "fsdp"])
def test_the_strategy_is_a_setting_that_exists(strategy):
    assert find_faults([DOWNLOAD, f"trainer.strategy={strategy}"], "train") == []


def test_each_value_of_a_sweep_is_tried():
    (line,) = find_faults(
        ["-m", DOWNLOAD, "trainer=cpu,gpuu", "seed=1,2", "model.optimizer.lr=interval(0,1)"], "train"
    )
    assert "trainer=gpuu; expected one of" in line


def test_groups_are_applied_before_values():
    assert (
        find_faults(["datamodule.scope_only=true", "datamodule=medicat", "datamodule.data_dir=."], "train")
        == []
    )


def test_a_folder_of_own_configs(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults:\n  - vit_gpt2\n")
    words = ["--config-dir", str(tmp_path), DOWNLOAD, "model=mine", "seeed=1"]
    (line,) = find_faults(words, "train")
    assert "did you mean seed?" in line


def test_without_a_base_config_hydras_words_stand(capsys):
    told = explain(ConfigCompositionException("broken\nin line 3"), ["seed=1"], "no_such_config")
    assert told == "broken in line 3"


def test_faults_need_a_base_config():
    with pytest.raises(Exception, match="no_such_config"):
        find_faults(["seed=1"], "no_such_config")


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("max_epochs", "trainer.max_epochs"),
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("model.lr", "model.optimizer.lr"),
        ("max_epoch", "trainer.max_epochs"),
        ("qqqq", None),
    ],
)
def test_nearest(key, near):
    assert nearest(key, ["trainer", "trainer.max_epochs", "model.optimizer.lr", "trainer.max_steps"]) == near


def test_flat_keys():
    assert list(flat_keys({"a": {"b": 1}, "c": [1]})) == ["a", "a.b", "c"]


@pytest.mark.parametrize(
    ("override", "character", "quoted"),
    [
        ("datamodule.data_dir=/a/x=1", "'='", "\"datamodule.data_dir='/a/x=1'\""),
        ("datamodule.data_dir=/a/(2024)", "'('", "\"datamodule.data_dir='/a/(2024)'\""),
        ("datamodule.data_dir=/a/[1]", "'['", "\"datamodule.data_dir='/a/[1]'\""),
        ("datamodule.data_dir=~/photos", "'~'", f"\"datamodule.data_dir='{Path.home()}/photos'\""),
    ],
)
def test_a_value_that_needs_quotes_names_the_character_and_shows_quoting_that_works(
    override, character, quoted
):
    (line,) = find_faults([override], "train")  # and no second error about the default folder
    assert f"because of the character {character}" in line
    assert line.endswith(f"write {quoted}")
    (argument,) = shlex.split(quoted)
    assert not [fault for fault in find_faults([argument], "train") if "cannot be read" in fault]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("+trainer.gradient_clip_val=0.5", "++trainer.gradient_clip_val=0.5"),
        ("+new=1", "+new=1"),
        ("++trainer.max_epochs=1", "++trainer.max_epochs=1"),
        ("logger=null", "logger=none"),
        ("callbacks=null", "callbacks=none"),
        ("+callbacks=null", "callbacks=none"),
    ],
)
def test_clear_overrides_that_hydra_refuses_are_rewritten(argument, expected):
    assert normalize_override(argument) == expected
    assert find_faults([DOWNLOAD, expected], "train") == []


def test_a_search_for_a_metric_that_no_run_has_is_refused():
    assert optimized_value({"val/loss_best": 0.5}, "val/loss_best") == 0.5
    assert optimized_value({"val/loss_best": 0.5}, None) is None
    with pytest.raises(UserError, match="set optimized_metric=val/loss_best"):
        optimized_value({"val/loss_best": 0.5, "test/cider_d": 1.0}, "val/los_best")


def test_home_is_expanded_in_every_path_of_a_config(tmp_path):
    config = OmegaConf.create(
        {"paths": {"data": "~/data", "log": "${paths.data}/logs"}, "names": ["~/a", "~b"]}
    )
    expand_home(config)
    assert config.paths.log == f"{Path.home()}/data/logs"
    assert list(config.names) == [f"{Path.home()}/a", "~b"]


def test_a_relative_data_dir_is_stored_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    overrides = ("datamodule.data_dir=images", "extras.print_config=false")
    with job(tmp_path / "run", *overrides) as config, task_run(config):
        pass
    stored = OmegaConf.load(tmp_path / "run" / "config_resolved.yaml")
    assert stored.datamodule.data_dir == str(tmp_path / "images")
