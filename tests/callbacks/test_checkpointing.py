"""A run resumed from any `last.ckpt` ends bit for bit as one that was never stopped, with dropout."""

import os
import shutil
import signal
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback

from src.utils.errors import Stopped
from tests.faults.tiny import Run, differences, with_dropout

pytestmark = pytest.mark.slow  # trains
PLATEAU = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=1.0)
SETTINGS = {
    "plain": {},
    "validated within": {"val_check_interval": 0.5},
    "accumulating": {"accumulate_grad_batches": 2},
    "plateau": {"scheduler": PLATEAU},
}


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory):
    return with_dropout(tiny_checkpoint, tmp_path_factory.mktemp("dropout"))


@pytest.fixture(scope="module")
def whole(checkpoint, flickr_folder, tmp_path_factory):
    """Return a function that gives the unbroken run of some settings, its folder and the settings."""
    done = {}

    def run(name):
        if name not in done:
            folder, settings = tmp_path_factory.mktemp("runs") / "whole", {"max_epochs": 2} | SETTINGS[name]
            done[name] = Run(checkpoint, flickr_folder, folder, **settings), folder, settings
        return done[name]

    return run


def lost_or_changed(whole, resumed, step):
    """Return what the resumed run logged otherwise than the unbroken one, or did not log."""
    one, other = whole.history.values, resumed.history.values
    changed = {place for place, value in other.items() if one.get(place) != value}
    return changed | {place for place in one if place[1] > step and place not in other}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("plain", 2),  # in mid-epoch
        ("plain", 4),  # the end of an epoch
        ("validated within", 2),
        ("accumulating", 1),
        ("plateau", 3),
        ("plateau", 4),
    ],
)
def test_a_resumed_run_ends_like_an_unbroken_one(checkpoint, flickr_folder, tmp_path, whole, name, number):
    unbroken, source, settings = whole(name)
    folder = shutil.copytree(source, tmp_path / "moved" / "whole")  # a run folder that was moved
    file = shutil.copy(folder / f"{number}.ckpt", folder / "last.ckpt")
    resumed = Run(checkpoint, flickr_folder, folder, resume=file, **settings)
    assert differences(unbroken.end(), resumed.end()) == []
    step = torch.load(source / f"{number}.ckpt", weights_only=True)["global_step"]
    assert lost_or_changed(unbroken, resumed, step) == set()


@pytest.mark.parametrize(
    ("name", "workaround"),
    [("plain", "src.models.vit_gpt2.load_loader_position"), ("plateau", "src.callbacks.checkpointing.end_restart")],
)
def test_workarounds_of_lightning_are_still_needed(
    checkpoint, flickr_folder, tmp_path, whole, monkeypatch, name, workaround
):
    unbroken, source, settings = whole(name)
    monkeypatch.setattr(workaround, lambda trainer: None)
    folder = shutil.copytree(source, tmp_path / "whole")
    file = shutil.copy(folder / "2.ckpt", folder / "last.ckpt")
    resumed = Run(checkpoint, flickr_folder, folder, resume=file, **settings)
    assert differences(unbroken.end(), resumed.end()) != []


def test_a_run_that_early_stopping_ended_does_not_train_on(checkpoint, flickr_folder, tmp_path):
    settings = {"patience": 1, "min_delta": 10.0, "max_epochs": 5}
    whole = Run(checkpoint, flickr_folder, tmp_path / "whole", **settings)
    assert whole.trainer.current_epoch == 2
    resumed = Run(checkpoint, flickr_folder, tmp_path / "whole", tmp_path / "whole" / "last.ckpt", **settings)
    assert differences(whole.end(), resumed.end()) == []


class Signal(Callback):
    """Send this process a signal in a hook, once the run is at a step."""

    def __init__(self, hook, step, number):
        self.step, self.number = step, number
        setattr(self, hook, self.send)

    def send(self, trainer, *_):
        if trainer.global_step >= self.step and self.number:
            number, self.number = self.number, None
            os.kill(os.getpid(), number)


@pytest.mark.skipif(os.name == "nt", reason="signals cannot be sent there")
@pytest.mark.parametrize(
    ("name", "hook", "step", "settings", "kept"),
    [
        ("SIGINT", "on_train_batch_start", 5, "plain", 6),  # the current step ends
        ("SIGTERM", "on_train_batch_start", 1, "accumulating", 1),
        ("SIGUSR1", "on_validation_batch_start", 4, "plain", 3),  # left; the step before it is repeated
        ("SIGTERM", "on_validation_epoch_end", 4, "plain", 4),  # too late to be left: the epoch ends
    ],
)
def test_a_signal_stops_after_a_whole_step_and_the_run_resumes(
    checkpoint, flickr_folder, tmp_path, whole, name, hook, step, settings, kept
):
    number, (unbroken, _, settings) = getattr(signal, name), whole(settings)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"ckpt_path=.*last\.ckpt") as caught:
        Run(checkpoint, flickr_folder, tmp_path / "cut", more=(Signal(hook, step, number),), **settings)
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(number) == before
    last = tmp_path / "cut" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == kept
    resumed = Run(checkpoint, flickr_folder, tmp_path / "cut", last, **settings)
    assert differences(unbroken.end(), resumed.end()) == []
