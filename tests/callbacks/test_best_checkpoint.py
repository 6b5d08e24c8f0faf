"""The best checkpoint of a run that goes on in another folder."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from src.callbacks.best_checkpoint import BestCheckpoint


@pytest.fixture
def earlier(tmp_path):
    """An earlier run's folder, and what its last.ckpt says of its best."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "best.ckpt").write_bytes(b"weights")
    path, score = str(folder / "best.ckpt"), torch.tensor(1.5)
    state = {
        "monitor": "val/loss", "best_model_score": score, "best_model_path": path, "current_score": score,
        "dirpath": str(folder), "best_k_models": {path: score}, "kth_best_model_path": path, "kth_value": score,
        "last_model_path": "",
    }  # fmt: skip
    return folder, state


def resumed(folder, ckpt_path, state, function=TrainerFn.FITTING, first=True):
    callback = BestCheckpoint(folder, "best", "val/loss")
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=function), ckpt_path=ckpt_path, is_global_zero=first, world_size=1
    )
    callback.on_load_checkpoint(trainer, None, {})
    callback.load_state_dict(state)
    return callback


@pytest.mark.parametrize("moved", [False, True])
def test_the_earlier_best_comes_along_with_its_score(tmp_path, earlier, moved):
    folder, state = earlier
    if moved:
        folder = folder.rename(tmp_path / "moved")
    callback = resumed(tmp_path / "on", folder / "last.ckpt", state)
    new = tmp_path / "on" / "best.ckpt"
    assert new.read_bytes() == (folder / "best.ckpt").read_bytes() == b"weights"
    assert (callback.best_model_path, callback.kth_best_model_path) == (str(new), str(new))
    assert callback.best_k_models == {str(new): torch.tensor(1.5)}
    assert callback.best_model_score == 1.5


def test_one_process_copies(tmp_path, earlier):
    folder, state = earlier
    callback = resumed(tmp_path / "on", folder / "last.ckpt", state, first=False)
    assert not (tmp_path / "on").exists()
    assert callback.best_k_models == {str(tmp_path / "on" / "best.ckpt"): torch.tensor(1.5)}


def test_a_best_that_is_gone_is_sought_anew(tmp_path, earlier):
    folder, state = earlier
    shutil.rmtree(folder)
    callback = resumed(tmp_path / "on", folder / "last.ckpt", state)
    assert (callback.best_k_models, callback.best_model_path) == ({}, "")


@pytest.mark.parametrize("function", [TrainerFn.TESTING, TrainerFn.FITTING])
def test_nothing_is_copied_to_test_or_within_one_folder(tmp_path, earlier, function):
    folder, state = earlier
    where = tmp_path / "scored" if function == TrainerFn.TESTING else folder
    callback = resumed(where, folder / "last.ckpt", state, function)
    assert not (tmp_path / "scored").exists()
    assert callback.best_model_path == str(folder / "best.ckpt")
