"""A wrong command line is explained whole."""

import pytest
from hydra.errors import ConfigCompositionException

from src.utils.overrides import explain, find_faults, flat_keys, nearest

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
