"""What is refused as a checkpoint, and that nothing of it runs."""

import os
import pickle

import pytest
import torch

from src.models.checkpoint import METADATA_KEY, AtomicCheckpointIO, check_base, match_names, read_checkpoint
from src.utils.errors import UserError


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path):
    target = tmp_path / "owned"
    torch.save({"state_dict": {}, METADATA_KEY: Attack(target)}, tmp_path / "bad.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Attack(target)))
    for name in ("bad.ckpt", "plain.ckpt"):
        with pytest.raises(UserError, match=r"not loaded|damaged"):
            read_checkpoint(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "damaged"), (b"PK\x03\x04 cut", "damaged"), (None, "does not exist")],
)
def test_a_file_that_is_no_checkpoint_is_told(tmp_path, content, message):
    path = tmp_path / "x.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(path)


def test_another_kind_and_another_layout_are_told(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"state_dict": {}, METADATA_KEY: {"format": 0}}, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="layout 0"):
        read_checkpoint(tmp_path / "old.ckpt")


def test_other_base_weights_are_refused():
    with pytest.raises(UserError, match="was trained on a"):
        check_base({"base": "a", "base_sha256": "1" * 64}, "b", "2" * 64)


def test_other_trained_weights_are_refused():
    with pytest.raises(UserError, match="num_layers_to_train"):
        match_names({"x": torch.zeros(1)}, {"y": "z"}, ["y"])


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_fault_that_is_not_the_disks_is_not_told_as_one(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("cannot write this tensor")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="this tensor"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
