"""Where training resumes, and with which settings."""

import pytest

from src.utils.errors import UserError
from src.utils.resolvers import run_folder
from src.utils.run_folder import check_same_settings, check_same_splits, read_splits, resumed_run


@pytest.fixture
def run(tmp_path):
    """A run folder with both checkpoints."""
    folder = tmp_path / "train" / "runs" / "one"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("run.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        (folder / name).write_text("{}")
    return folder


def test_a_run_continues_in_its_own_folder_from_its_last_checkpoint(run, tmp_path):
    for value in (run, run / "checkpoints" / "last.ckpt", "last"):
        assert resumed_run(str(value), tmp_path, "train") == run
        assert run_folder(str(tmp_path), "train", str(value)) == str(run)


def test_other_checkpoints_begin_a_new_run(run, tmp_path):
    moved = (run / "checkpoints" / "last.ckpt").rename(tmp_path / "last.ckpt")
    for value in (None, run / "checkpoints" / "best.ckpt", moved, tmp_path / "none.ckpt", "last"):
        assert resumed_run(value and str(value), tmp_path, "train") is None
        assert run_folder(str(tmp_path), "train", value and str(value)).startswith(str(run.parent / "2"))


BEFORE = {"datamodule": {"batch_size": 8, "data_dir": "a"}, "model": {"optimizer": {"lr": 0.1}}, "seed": 1,
          "trainer": {"max_epochs": 5, "accumulate_grad_batches": 1}}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (
            {"datamodule": {"batch_size": 4, "data_dir": "a"}},
            "datamodule.batch_size=4; expected 8 as in there",
        ),
        ({"model": {"optimizer": {"lr": 0.2}}}, "model.optimizer.lr=0.2; expected 0.1"),
        ({"model": {"optimizer": None}}, "model.optimizer.lr=null; expected 0.1"),
        ({"seed": 2}, "seed=2; expected 1"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "trainer.accumulate_grad_batches=2; expected 1"),
    ],
)
def test_a_setting_that_would_be_ignored_is_named_with_its_value(now, message):
    with pytest.raises(UserError, match=message):
        check_same_settings(BEFORE | now, BEFORE, "there")


def test_longer_training_and_data_elsewhere_are_taken():
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
