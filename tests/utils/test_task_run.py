"""What a task leaves behind, however it ends."""

import json
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from src.utils.errors import ConfigErrors, UserError
from src.utils.task_run import close_loggers, task_run
from tests.utils.composing import job

RIGHT = "datamodule.download=true"


def about(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_task_that_ends_well(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "seed=3", "tags=[a b]"])
    with job(tmp_path, RIGHT, "seed=3", "tags=[one]") as config, task_run(config) as folder:
        assert about(tmp_path)["status"] == "running"
    assert folder == tmp_path
    record = about(tmp_path)
    assert (record["status"], record["seed"], record["tags"]) == ("finished", 3, ["one"])
    assert record["command"] == "train.py seed=3 'tags=[a b]'"
    assert record["seconds"] >= 0
    assert {"python", "torch", "transformers"} <= set(record["versions"])
    resolved = OmegaConf.load(tmp_path / "config_resolved.yaml")
    assert resolved.paths.output_dir == str(tmp_path)
    assert "${" not in (tmp_path / "config_resolved.yaml").read_text()
    assert (tmp_path / "tags.log").read_text() == "one\n"


def test_a_fault_leaves_its_traceback(tmp_path):
    def fail(config):
        with task_run(config):
            raise RuntimeError("the wheel came off")

    with job(tmp_path, RIGHT) as config, pytest.raises(RuntimeError, match="wheel") as caught:
        fail(config)
    text = (tmp_path / "error.log").read_text()
    assert "Traceback" in text
    assert "the wheel came off" in text
    assert caught.value.__notes__ == [f"the traceback is in {tmp_path / 'error.log'}"]
    assert about(tmp_path)["status"] == "failed"


@pytest.mark.parametrize(("error", "status"), [(UserError("no"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_persons_own_doing_leaves_no_traceback(tmp_path, error, status):
    def fail(config):
        with task_run(config):
            raise error

    with job(tmp_path, RIGHT) as config, pytest.raises(type(error)):
        fail(config)
    assert not (tmp_path / "error.log").exists()
    assert about(tmp_path)["status"] == status


def test_a_wrong_config_starts_nothing(tmp_path):
    started = []
    wrong = job(tmp_path, RIGHT, "datamodule.batch_size=0")
    with wrong as config, pytest.raises(ConfigErrors, match="batch_size=0"), task_run(config):
        started.append(True)
    assert started == []
    assert not (tmp_path / "run.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "config_resolved.yaml").mkdir()
    off = ["extras.enforce_tags=false", "extras.print_config=false"]
    quiet = job(tmp_path, RIGHT, *off)
    with quiet as config, pytest.raises(UserError, match="cannot be written"), task_run(config):
        pass


def test_a_full_disk_does_not_hide_the_fault(tmp_path):
    def fail(config):
        with task_run(config) as folder:
            for name in ("error.log", "run.json"):
                (folder / name).unlink(missing_ok=True)
                (folder / name).mkdir()
            raise RuntimeError("the wheel came off")

    with job(tmp_path, RIGHT) as config, pytest.raises(RuntimeError, match="wheel") as caught:
        fail(config)
    assert not hasattr(caught.value, "__notes__")


def test_other_ranks_write_nothing_but_their_own_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "2")

    def fail(config):
        with task_run(config):
            raise RuntimeError("the wheel came off")

    with job(tmp_path, RIGHT) as config, pytest.raises(RuntimeError):
        fail(config)
    assert [path.name for path in tmp_path.iterdir()] == ["error_rank_2.log"]


def test_loggers_are_closed(monkeypatch):
    ended = []
    wandb = SimpleNamespace(run="a run", finish=lambda exit_code: ended.append(exit_code))
    mlflow = SimpleNamespace(active_run=lambda: "a run", end_run=ended.append)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    close_loggers()
    close_loggers(failed=True)
    assert ended == [0, "FINISHED", 1, "FAILED"]
