"""The average of the trained weights is validated and saved, and training goes on from the weights themselves."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from src.callbacks.ema import WeightEma
from src.models.checkpoint import read_checkpoint
from tests.tiny import make, trainer


class Recorder(pl.Callback):
    """Keep the weights after each step and the weights of each validation."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.steps.append(self.weights(module))

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated.append(self.weights(module))

    def weights(self, module):
        return {name: weight.detach().clone() for name, weight in module.trained_weights().items()}


def fit(folder, checkpoint, images, decay=0.5, resume=None, max_epochs=2):
    module, data = make(checkpoint, images, split_ratios=[0.8, 0.1, 0.1], num_samples=100)
    recorder = Recorder()
    best = ModelCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False)
    recorder.start = recorder.weights(module)
    settings = {"max_epochs": max_epochs, "enable_checkpointing": True}
    fitting = trainer(folder, WeightEma(decay), recorder, best, **settings)
    fitting.fit(module, data, ckpt_path=resume, weights_only=True)
    fitting.save_checkpoint(folder / "end.ckpt")
    return module, recorder


def assert_equal(found, expected):
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, tiny_checkpoint, flickr_folder):
    folder = tmp_path_factory.mktemp("ema")
    return folder, *fit(folder, tiny_checkpoint, flickr_folder)


def test_validation_checkpoints_and_the_end_have_the_average(fitted):
    folder, module, recorder = fitted
    average, steps = recorder.start, len(recorder.steps)
    for step, weights in enumerate(recorder.steps, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * weight for name, weight in weights.items()}
        if step == steps // 2:
            assert_equal(recorder.validated[0], average)
    assert_equal(recorder.validated[-1], average)
    assert_equal(module.trained_weights(), average)
    saved = read_checkpoint(folder / "best.ckpt")
    averages = [recorder.validated[index] for index in (0, -1)]
    names = {name: module.captioner.names[name] for name in average}
    found = {name: saved["state_dict"][hub] for name, hub in names.items()}
    assert any(all(torch.equal(found[name], one[name]) for name in found) for one in averages)
    assert len(saved["state_dict"]) == len(average)


def test_a_resumed_run_is_the_same_bit_for_bit(fitted, tiny_checkpoint, flickr_folder, tmp_path):
    _, module, recorder = fitted
    fit(tmp_path, tiny_checkpoint, flickr_folder, max_epochs=1)
    again, resumed = fit(tmp_path, tiny_checkpoint, flickr_folder, resume=tmp_path / "best.ckpt")
    assert all(torch.equal(weight, resumed.steps[-1][name]) for name, weight in recorder.steps[-1].items())
    expected = module.trained_weights()
    assert all(torch.equal(weight, expected[name]) for name, weight in again.trained_weights().items())


def test_without_a_decay_nothing_changes(tiny_checkpoint, flickr_folder, tmp_path):
    module, recorder = fit(tmp_path, tiny_checkpoint, flickr_folder, decay=None, max_epochs=1)
    assert all(torch.equal(weight, recorder.steps[-1][name]) for name, weight in module.trained_weights().items())
    assert not [name for name in read_checkpoint(tmp_path / "best.ckpt") if "ema" in name]
