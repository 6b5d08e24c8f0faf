"""No secret reaches a file: neither from the environment nor from the command line."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.utils.run_folder import plain_config, redact, redact_hydra_files
from src.utils.task_run import task_run
from tests.utils.composing import job

PLANTED = "PLANTED-SECRET"
LOGGERS = ("comet", "csv", "mlflow", "neptune", "none", "tensorboard", "wandb", "aim", "many_loggers")


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("logger", LOGGERS)
def test_no_file_holds_a_key_of_the_environment(logger, tmp_path, monkeypatch):
    for name in ("COMET_API_KEY", "NEPTUNE_API_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, PLANTED)
    monkeypatch.setattr("src.utils.task_run.check_config", lambda config: None)  # the packages are missing here
    overrides = (f"logger={logger}", f"+model.api_key={PLANTED}")
    with job(tmp_path, *overrides, "datamodule.max_caption_tokens=9") as config, task_run(config):
        plain = plain_config(config)
    assert PLANTED not in str(plain)
    assert (tmp_path / "config_resolved.yaml").is_file()
    assert files_with(tmp_path, PLANTED) == []
    # what only looks like a secret is kept
    assert (plain["datamodule"]["max_caption_tokens"], plain["metrics"]["tokenizer"]) == (9, "ptb")
    assert "logger" not in plain


@pytest.mark.parametrize("value", [PLANTED, f"'{PLANTED}'", f"a {PLANTED}", f"{PLANTED},4"])
def test_keys_on_the_command_line_are_redacted(value, tmp_path):
    overrides = [f"logger.comet.api_key={value}", "seed=1"]
    assert PLANTED not in str(redact(["train.py", *overrides]))
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(overrides), tmp_path / "run" / ".hydra" / "overrides.yaml")
    OmegaConf.save({"logger": {"comet": {"api_key": value}}, "token": [value]}, tmp_path / "multirun.yaml")
    redact_hydra_files(tmp_path / "run")
    assert files_with(tmp_path, PLANTED) == []
    assert "seed=1" in (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
