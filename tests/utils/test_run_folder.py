"""The way from `ckpt_path` to a file."""

import json
import os

import pytest

from src.utils.errors import UserError
from src.utils.run_folder import checkpoint_file, find_checkpoint, newest_run, write_json


def make_run(logs, name, *files):
    folder = logs / name / "checkpoints"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"")
    return folder


def test_last_is_the_run_of_that_task_that_wrote_last_whatever_it_is_called(tmp_path):
    names = ("train/runs/2026-02-01", "train/multiruns/zzz/2", "train/multiruns/zzz/10", "debug/runs/a")
    for number, name in enumerate(names):
        os.utime(make_run(tmp_path, name, "last.ckpt") / "last.ckpt", (number, number))
    make_run(tmp_path, "train/runs/2026-03-01")  # has none
    assert newest_run(tmp_path) == tmp_path / "debug/runs/a"
    assert newest_run(tmp_path, "train") == tmp_path / "train/multiruns/zzz/10"
    os.utime(tmp_path / "train/runs/2026-02-01/checkpoints/last.ckpt", (9, 9))
    assert newest_run(tmp_path, "train") == tmp_path / "train/runs/2026-02-01"


@pytest.mark.parametrize("value", ["run", "last"])
def test_training_resumes_from_last_and_everything_else_takes_best(tmp_path, value):
    folder = make_run(tmp_path, "train/runs/a", "best.ckpt", "last.ckpt")
    value = str(folder.parent) if value == "run" else value
    assert find_checkpoint(value, tmp_path) == str(folder / "best.ckpt")
    assert find_checkpoint(value, tmp_path, which="last") == str(folder / "last.ckpt")


def test_no_run_at_all(tmp_path):
    with pytest.raises(UserError, match="ckpt_path=last: no run under"):
        newest_run(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="does not exist; expected"):
        find_checkpoint(str(tmp_path / "no.ckpt"), tmp_path)


def test_json_is_whole_or_not_there(tmp_path):
    write_json(tmp_path / "metrics.json", {"test/loss": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test/loss": 1.5}
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "folder.json", {})


def test_last_is_the_newest_run_and_a_folder_its_best(tmp_path, monkeypatch):
    checkpoints = tmp_path / "logs/train/runs/2026-01-01_00-00-00/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").touch()
    monkeypatch.chdir(checkpoints)  # the same from any folder
    monkeypatch.setattr("src.utils.run_folder.PROJECT_LOGS", tmp_path / "logs")
    assert checkpoint_file("last") == checkpoints / "last.ckpt"
    assert checkpoint_file(str(checkpoints.parent)) == checkpoints / "last.ckpt"
    (checkpoints / "best.ckpt").touch()
    assert checkpoint_file(str(checkpoints.parent)) == checkpoints / "best.ckpt"
    assert checkpoint_file("last", tmp_path / "logs") == checkpoints / "best.ckpt"
    with pytest.raises(UserError, match="checkpoint=last: no run under"):
        checkpoint_file("last", tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["captioner", "nlpconnect/vit-gpt2-image-captioning"])
def test_what_may_be_on_the_hub_is_not_refused(name):
    assert checkpoint_file(name) is None


@pytest.mark.parametrize("name", ["./nothing", "~/nothing/here", "/nothing", "a/b/c", "nothing.ckpt"])
def test_a_path_to_nothing_is_refused(name):
    with pytest.raises(
        UserError, match=r"does not exist; expected a \.ckpt, a run folder, a saved folder or a hub id"
    ):
        checkpoint_file(name)
