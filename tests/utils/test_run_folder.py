"""The way from `ckpt_path` to a file."""

import json
import os

import pytest

from src.utils.errors import UserError
from src.utils.run_folder import checkpoint_file, find_checkpoint, newest_checkpoint, write_json


def make_run(logs, name, *files):
    folder = logs / name / "checkpoints"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"")
    return folder


def test_last_is_the_newest_run_by_its_stamp_not_by_the_files_age(tmp_path):
    new = make_run(tmp_path, "train/runs/2026-02-01_10-00-00-000002-ffffff", "last.ckpt")
    old = make_run(tmp_path, "train/runs/2026-02-01_10-00-00-000001-aaaaaa", "last.ckpt")
    os.utime(new / "last.ckpt", (1, 1))
    make_run(tmp_path, "train/runs/2026-03-01_10-00-00-000000-aaaaaa")  # has none
    make_run(tmp_path, "debug/runs/2026-04-01_10-00-00-000000-aaaaaa", "last.ckpt")  # no training
    assert newest_checkpoint(tmp_path) == new / "last.ckpt"
    assert find_checkpoint("last", tmp_path) == str(new / "last.ckpt")
    assert old.is_dir()


def test_last_of_a_multirun_is_its_last_job(tmp_path):
    make_run(tmp_path, "train/runs/2026-02-01_10-00-00-000002-ffffff", "last.ckpt")
    make_run(tmp_path, "train/multiruns/2026-02-02_10-00-00-000002-ffffff/2", "last.ckpt")
    tenth = make_run(tmp_path, "train/multiruns/2026-02-02_10-00-00-000002-ffffff/10", "last.ckpt")
    assert newest_checkpoint(tmp_path) == tenth / "last.ckpt"


def test_no_run_at_all(tmp_path):
    with pytest.raises(UserError, match="ckpt_path=last: no run under"):
        newest_checkpoint(tmp_path)


def test_files_and_run_folders(tmp_path):
    folder = make_run(tmp_path, "train/runs/a", "best.ckpt", "last.ckpt")
    assert find_checkpoint(str(folder / "last.ckpt"), tmp_path) == str(folder / "last.ckpt")
    assert find_checkpoint(str(folder.parent), tmp_path) == str(folder / "best.ckpt")
    assert find_checkpoint(None, tmp_path) is None


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
    monkeypatch.chdir(tmp_path)
    assert checkpoint_file("last") == checkpoints / "last.ckpt"
    assert checkpoint_file(str(checkpoints.parent)) == checkpoints / "last.ckpt"
    (checkpoints / "best.ckpt").touch()
    assert checkpoint_file(str(checkpoints.parent)) == checkpoints / "best.ckpt"


@pytest.mark.parametrize("name", ["captioner", "nlpconnect/vit-gpt2-image-captioning"])
def test_what_may_be_on_the_hub_is_not_refused(name):
    assert checkpoint_file(name) is None


@pytest.mark.parametrize("name", ["./nothing", "~/nothing/here", "/nothing", "a/b/c", "nothing.ckpt"])
def test_a_path_to_nothing_is_refused(name):
    with pytest.raises(
        UserError, match=r"does not exist; expected a \.ckpt, a run folder, a saved folder or a hub id"
    ):
        checkpoint_file(name)
