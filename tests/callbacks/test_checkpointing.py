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


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory):
    return with_dropout(tiny_checkpoint, tmp_path_factory.mktemp("dropout"))


def lost_or_changed(whole, resumed, step):
    """What the resumed run logged otherwise than the unbroken one, or did not log."""
    one, other = whole.history.values, resumed.history.values
    changed = {place for place, value in other.items() if one.get(place) != value}
    return changed | {place for place in one if place[1] > step and place not in other}


PLATEAU = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=1.0)


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        (
            {},
            (2, 3, 4, 11),
        ),  # mid-epoch, the step before a validation, an epoch's end, before the last validation
        ({"val_check_interval": 0.5}, (1, 2, 3)),  # around a validation in mid-epoch
        ({"accumulate_grad_batches": 2}, (1, 2, 3)),
        ({"check_val_every_n_epoch": 2}, (3, 4)),
        ({"scheduler": PLATEAU}, (2, 3, 4)),
    ],
    ids=["plain", "validated within", "accumulating", "validated every other", "plateau"],
)
def test_a_resumed_run_ends_like_an_unbroken_one(checkpoint, flickr_folder, tmp_path, settings, files):
    whole = Run(checkpoint, flickr_folder, tmp_path / "whole", **settings)
    for number in files:
        folder = tmp_path / str(number) / "whole"  # a run folder that was moved
        shutil.copytree(tmp_path / "whole", folder)
        file = shutil.copy(folder / f"{number}.ckpt", folder / "last.ckpt")
        step = torch.load(file, weights_only=True)["global_step"]
        resumed = Run(checkpoint, flickr_folder, folder, resume=file, **settings)
        assert differences(whole.end(), resumed.end()) == [], f"{number}.ckpt, step {step}"
        assert lost_or_changed(whole, resumed, step) == set(), f"{number}.ckpt, step {step}"


def test_a_run_that_early_stopping_ended_does_not_train_on(checkpoint, flickr_folder, tmp_path):
    settings = {"patience": 1, "min_delta": 10.0, "max_epochs": 5}
    whole = Run(checkpoint, flickr_folder, tmp_path / "whole", **settings)
    assert whole.trainer.current_epoch == 2
    resumed = Run(checkpoint, flickr_folder, tmp_path / "whole", tmp_path / "whole" / "last.ckpt", **settings)
    assert differences(whole.end(), resumed.end()) == []


class Signal(Callback):
    """Sends this process a signal in a hook, once the run is at a step."""

    def __init__(self, hook, step, number):
        self.step, self.number = step, number
        setattr(self, hook, self.send)

    def send(self, trainer, *_):
        if trainer.global_step >= self.step and self.number:
            number, self.number = self.number, None
            os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("name", "hook", "step", "accumulate", "kept"),
    [
        ("SIGINT", "on_train_batch_start", 5, 1, 6),  # the current step ends
        ("SIGTERM", "on_train_batch_start", 1, 3, 1),  # an epoch's last step, which a validation follows
        (
            "SIGUSR1",
            "on_validation_batch_start",
            4,
            1,
            3,
        ),  # a validation is left; the step before it is repeated
        ("SIGTERM", "on_validation_epoch_end", 4, 1, 4),  # too late to be left: the epoch ends
    ],
)
def test_a_signal_stops_after_a_whole_step_and_the_run_resumes(
    checkpoint, flickr_folder, tmp_path, name, hook, step, accumulate, kept
):
    if not hasattr(signal, name) or os.name == "nt":
        pytest.skip(f"{name} cannot be sent here")
    number, settings = getattr(signal, name), {"accumulate_grad_batches": accumulate}
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"ckpt_path=.*last\.ckpt") as caught:
        Run(checkpoint, flickr_folder, tmp_path / "cut", more=(Signal(hook, step, number),), **settings)
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(number) == before
    last = tmp_path / "cut" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == kept
    resumed = Run(checkpoint, flickr_folder, tmp_path / "cut", last, **settings)
    whole = Run(checkpoint, flickr_folder, tmp_path / "whole", **settings)
    assert differences(whole.end(), resumed.end()) == []
