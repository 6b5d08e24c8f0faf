"""Run folders that no two jobs share, the checkpoint that a setting means, where and how training resumes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.utils import run_folder as module
from src.utils.errors import UserError
from src.utils.run_folder import (
    check_same_settings,
    check_same_splits,
    checkpoint_file,
    expand_home,
    made_folder,
    newest_run,
    read_splits,
    register_resolvers,
    resumed_run,
    run_folder,
)


def test_a_run_is_named_by_minute_and_experiment_and_a_second_one_gets_a_number(tmp_path):
    register_resolvers()
    text = "${run_folder:LOGS,train/runs,null,caption,null,flickr.yaml}".replace("LOGS", str(tmp_path))
    config = OmegaConf.create({"first": text, "second": text})
    assert config.first == config.second  # one config, one folder
    folders = [Path(run_folder(str(tmp_path), "train/runs", None, None, "a/demo", "flickr")) for _ in range(3)]
    assert all(folder.is_dir() for folder in folders)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d_flickr", Path(config.first).name)
    assert re.fullmatch(r".*_a-demo", folders[0].name)
    if folders[0].name[:16] == folders[2].name[:16]:  # the same minute
        assert [folder.name for folder in folders[1:]] == [f"{folders[0].name}_2", f"{folders[0].name}_3"]
    assert made_folder(str(tmp_path / "a" / "b")) == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_other_ranks_get_a_private_temporary_folder_that_is_removed_at_exit(root, tmp_path):
    code = (
        "import os; from src.utils.run_folder import run_folder\n"
        "os.environ['RANK'] = '1'; folder = run_folder('logs', 'train/runs')\n"
        "print(folder, oct(os.stat(os.path.dirname(os.path.dirname(os.path.dirname(folder)))).st_mode))"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    other = done.stdout.strip()
    assert other.startswith(str(tmp_path / "captioner-rank-"))
    assert os.name == "nt" or other.endswith("0o40700")  # nobody else can write there
    assert list(tmp_path.iterdir()) == []


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


def test_captions_come_from_the_newest_run_that_is_finished(tmp_path):
    for number, status in enumerate(("finished", "stopped", "running")):
        folder = make_run(tmp_path, f"train/runs/{number}", "last.ckpt", "best.ckpt")
        os.utime(folder / "last.ckpt", (number, number))
        (folder.parent / "run.json").write_text(json.dumps({"status": status}))
    assert checkpoint_file("last", tmp_path) == tmp_path / "train/runs/0/checkpoints/best.ckpt"
    assert newest_run(tmp_path) == tmp_path / "train/runs/2"  # to resume
    shutil.rmtree(tmp_path / "train/runs/0")
    with pytest.raises(UserError, match=r"runs/2 is not finished; .* set checkpoint=.*runs/2$"):
        checkpoint_file("last", tmp_path)


def test_showing_the_config_creates_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "all", "--resolve"])
    assert run_folder(str(tmp_path / "logs"), "train/runs").startswith(str(tmp_path))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("value", ["run", "last"])
def test_training_resumes_from_last_and_everything_else_takes_best(tmp_path, monkeypatch, value):
    folder = make_run(tmp_path, "train/runs/a", "last.ckpt")
    monkeypatch.chdir(folder)  # the same from any folder
    value = str(folder.parent) if value == "run" else value
    assert checkpoint_file(value, tmp_path) == folder / "last.ckpt"
    (folder / "best.ckpt").touch()
    assert checkpoint_file(value, tmp_path) == folder / "best.ckpt"
    assert checkpoint_file(value, tmp_path, which="last") == folder / "last.ckpt"
    monkeypatch.setattr(module, "PROJECT_LOGS", tmp_path)
    assert checkpoint_file(value) == folder / "best.ckpt"


@pytest.mark.parametrize("name", ["captioner", "nlpconnect/vit-gpt2-image-captioning"])
def test_what_may_be_on_the_hub_is_not_refused(name):
    assert checkpoint_file(name) is None


@pytest.mark.parametrize("name", ["./nothing", "~/nothing/here", "/nothing", "a/b/c", "nothing.ckpt", "last"])
def test_a_path_to_nothing_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"checkpoint='.*does not exist; expected|checkpoint=last: no run under"):
        checkpoint_file(name, tmp_path)


def test_a_run_that_never_trained_is_named(tmp_path):
    (tmp_path / "run.json").touch()
    with pytest.raises(UserError, match=r"holds no checkpoints/best\.ckpt"):
        checkpoint_file(str(tmp_path))


@pytest.fixture
def run(tmp_path):
    """A run folder with both checkpoints."""
    folder = tmp_path / "train" / "runs" / "one"
    make_run(tmp_path, "train/runs/one", "best.ckpt", "last.ckpt")
    (folder / "run.json").write_text("{}")
    return folder


def test_a_run_continues_in_its_own_folder_from_its_last_checkpoint(run, tmp_path):
    for value in (run, run / "checkpoints" / "last.ckpt", "last"):
        assert resumed_run(str(value), tmp_path, "train") == run
        assert run_folder(str(tmp_path), "train/runs", str(value)) == str(run)


def test_other_checkpoints_begin_a_new_run(run, tmp_path):
    moved = (run / "checkpoints" / "last.ckpt").rename(tmp_path / "last.ckpt")
    for value in (None, run / "checkpoints" / "best.ckpt", moved, tmp_path / "none.ckpt", "last"):
        assert resumed_run(value and str(value), tmp_path, "train") is None
        assert run_folder(str(tmp_path), "train/runs", value and str(value)).startswith(str(run.parent / "2"))


BEFORE = {"datamodule": {"batch_size": 8, "data_dir": "a"}, "model": {"optimizer": {"lr": 0.1}}, "seed": 1,
          "trainer": {"max_epochs": 5, "accumulate_grad_batches": 1}}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"datamodule": {"batch_size": 4}}, "datamodule.batch_size=4; expected 8 as in there"),
        ({"model": {"optimizer": {"lr": 0.2}}}, "model.optimizer.lr=0.2; expected 0.1"),
        ({"model": {"optimizer": None}}, "model.optimizer.lr=null; expected 0.1"),
        ({"seed": 2}, "seed=2; expected 1"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "trainer.accumulate_grad_batches=2; expected 1"),
    ],
)
def test_a_setting_that_would_be_ignored_is_named_with_its_value(now, message):
    with pytest.raises(UserError, match=message):
        check_same_settings(BEFORE | now, BEFORE, "there")


def test_longer_training_and_data_elsewhere_are_accepted():
    now = BEFORE | {"trainer": {"max_epochs": 9, "accumulate_grad_batches": 1}, "tags": ["a"]}
    check_same_settings(now | {"datamodule": {"batch_size": 8, "data_dir": "b"}}, BEFORE, "there")


def test_other_images_or_another_split_are_refused(run):
    checkpoint, splits = run / "checkpoints" / "last.ckpt", {"a.jpg": "train", "b.jpg": "test"}
    assert read_splits(checkpoint) == {}
    check_same_splits(splits, checkpoint)
    (run / "splits.csv").write_text("image_id,split\na.jpg,train\nb.jpg,test\n")
    check_same_splits(splits, checkpoint)
    for now in (splits | {"b.jpg": "train"}, splits | {"c.jpg": "train"}, {"a.jpg": "train"}):
        with pytest.raises(UserError, match=r"1 of 2, first '[bc]\.jpg'"):
            check_same_splits(now, checkpoint)


def test_home_is_expanded_in_every_path_of_a_config():
    config = OmegaConf.create({"paths": {"data": "~/data", "log": "${paths.data}/logs"}, "name": "~b"})
    expand_home(config)
    assert (config.paths.log, config.name) == (f"{Path.home()}/data/logs", "~b")
