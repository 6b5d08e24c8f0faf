"""What a task leaves behind, however it ends; tags and the printed config before it."""

import json
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from src.utils.errors import ConfigErrors, UserError
from src.utils.task_run import task_run
from tests.utils.composing import job

RIGHT = ("extras.print_config=false",)


def about(folder):
    return json.loads((folder / "run.json").read_text())


def run_job(folder, error, *overrides):
    """Run a task that raises `error`."""
    with job(folder, *RIGHT, *overrides) as config, task_run(config):
        raise error


def test_a_task_that_ends_well(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "seed=3", "tags=[a b]"])
    monkeypatch.chdir(tmp_path)
    overrides = ("seed=3", "tags=[one]", "datamodule.data_dir=images")
    with job(tmp_path, *RIGHT, *overrides) as config, task_run(config) as folder:
        assert about(tmp_path)["status"] == "running"
    assert folder == tmp_path
    record = about(tmp_path)
    assert (record["status"], record["seed"], record["tags"]) == ("finished", 3, ["one"])
    assert record["command"] == "train.py seed=3 'tags=[a b]'"
    assert record["seconds"] >= 0
    assert {"python", "torch", "transformers"} <= set(record["versions"])
    resolved = OmegaConf.load(tmp_path / "config_resolved.yaml")
    assert resolved.paths.output_dir == str(tmp_path)
    assert resolved.datamodule.data_dir == str(tmp_path / "images")  # a relative one is stored absolute
    assert "${" not in (tmp_path / "config_resolved.yaml").read_text()


def test_a_fault_leaves_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match="wheel") as caught:
        run_job(tmp_path, RuntimeError("the wheel came off"))
    text = (tmp_path / "error.log").read_text()
    assert "Traceback" in text
    assert "the wheel came off" in text
    assert caught.value.__notes__ == [f"the traceback is in {tmp_path / 'error.log'}"]
    assert about(tmp_path)["status"] == "failed"


@pytest.mark.parametrize(("error", "status"), [(UserError("no"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_mistake_or_a_stop_leaves_no_traceback(tmp_path, error, status):
    with pytest.raises(type(error)):
        run_job(tmp_path, error)
    assert not (tmp_path / "error.log").exists()
    assert about(tmp_path)["status"] == status


@pytest.mark.parametrize("left", [(), ("metrics.json",), (".hydra/mine.yaml",)])
def test_a_failed_start_leaves_no_folder_unless_it_holds_more_than_records(tmp_path, left):
    folder = tmp_path / "train" / "runs" / "one"
    for name in (".hydra/config.yaml", "train.log", *left):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    for overrides, error in (((), UserError), (("datamodule.batch_size=0",), ConfigErrors)):
        with pytest.raises(error):
            run_job(folder, UserError("no"), *overrides)
        assert folder.exists() == bool(left)
    assert all((folder / name).read_text() == "{}" for name in left)
    assert folder.parent.is_dir()


def test_a_wrong_config_starts_nothing(tmp_path):
    with pytest.raises(ConfigErrors, match="batch_size=0"):
        run_job(tmp_path, AssertionError("started"), "datamodule.batch_size=0")
    assert not (tmp_path / "run.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "config_resolved.yaml").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        run_job(tmp_path, AssertionError("started"))


def test_a_full_disk_does_not_hide_the_fault(tmp_path):
    (tmp_path / "error.log").mkdir()
    with pytest.raises(RuntimeError, match="wheel") as caught:
        run_job(tmp_path, RuntimeError("the wheel came off"))
    assert not hasattr(caught.value, "__notes__")


def test_other_ranks_write_nothing_but_their_own_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(RuntimeError):
        run_job(tmp_path, RuntimeError("the wheel came off"))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["train/error_rank_2.log"]


def test_a_run_of_wandb_is_closed(tmp_path, monkeypatch):
    ended = []
    wandb = SimpleNamespace(run="a run", finish=lambda exit_code: ended.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with job(tmp_path, *RIGHT) as config, task_run(config):
        pass
    with pytest.raises(UserError):
        run_job(tmp_path, UserError("no"))
    assert ended == [0, 1]


def test_the_config_is_shown_without_secrets(tmp_path, capsys):
    with (
        job(tmp_path, "extras.print_config=true", "seed=31415", "+paths.api_key=hidden") as config,
        task_run(config),
    ):
        shown = capsys.readouterr().err
    assert "seed: 31415" in shown
    assert "hidden" not in shown
