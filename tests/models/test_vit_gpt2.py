"""VitGpt2 clips, accumulates and schedules as set, refuses steps that are not finite, and captions test images."""

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from src.models.optimization import linear_with_warmup
from src.utils.errors import UserError
from tests import tiny
from tests.tiny import trainer, weights_of


@pytest.fixture
def make(tiny_checkpoint, flickr_folder):
    """A module and a data module: `make({"num_samples": 60}, train="full")`."""
    return lambda data=None, **settings: tiny.make(tiny_checkpoint, flickr_folder, settings, **(data or {}))


def assert_equal(found, expected):
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


def test_training_needs_an_optimizer_and_a_schedule_needs_an_end(make, tmp_path):
    with pytest.raises(UserError, match=r"model\.optimizer=null"):
        trainer(tmp_path).fit(*make(optimizer=None))
    schedule = {"scheduler": linear_with_warmup, "interval": "step", "frequency": 1, "monitor": "val/loss"}
    module, data = make(lr_scheduler=schedule)
    with pytest.raises(UserError, match=r"trainer\.max_epochs=-1 with a schedule; expected an end"):
        trainer(tmp_path, max_epochs=-1).fit(module, data)


@pytest.mark.parametrize(
    ("warmup", "frequency", "expected"),
    [(0.0, 1, [1, 0.75, 0.5, 0.25]), (0.0, 2, [1, 1, 0.5, 0.5]), (0.5, 1, [0.5, 1, 1, 0.5])],
)
@pytest.mark.slow
def test_a_schedule_per_epoch_counts_epochs_and_none_has_rate_0(make, tmp_path, warmup, frequency, expected):
    found = []
    schedule = {"scheduler": partial(linear_with_warmup, warmup=warmup), "interval": "epoch"}
    module, data = make({"num_samples": 80}, lr_scheduler={**schedule, "frequency": frequency})
    module.on_train_epoch_start = lambda: found.append(module.trainer.optimizers[0].param_groups[0]["lr"])
    trainer(tmp_path, max_epochs=4).fit(module, data)
    assert found == pytest.approx([1e-2 * factor for factor in expected])


class Gradients(pl.Callback):
    """Gradients of each step before and after clipping, and the logged norm; `spoil` changes them first."""

    def __init__(self, spoil=None):
        self.before, self.after, self.logged, self.spoil = [], [], [], spoil

    def on_after_backward(self, trainer, module):
        if self.spoil is not None:
            next(iter(module.trained_weights().values())).grad.view(-1)[0] = self.spoil

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.before.append(self.flat(module))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.after.append(self.flat(module))
        self.logged.append(float(trainer.callback_metrics.get("train/grad_norm", math.nan)))

    def flat(self, module):
        return torch.cat([weight.grad.flatten().clone() for weight in module.trained_weights().values()])


def fit_gradients(make, tmp_path, gradients, data=None, optimizer=None, **settings):
    """Train one step without dropout; the module and its trained weights before."""
    optimizer = optimizer or partial(torch.optim.SGD, lr=1.0)
    module, data = make({"num_samples": 60, **(data or {})}, optimizer=optimizer)
    before = weights_of(module)
    settings = {"max_steps": 1, "limit_val_batches": 0, "log_every_n_steps": 1} | settings
    trainer(tmp_path, gradients, **settings).fit(module, data)
    return module, before


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_by_the_algorithm_that_is_set(make, tmp_path, algorithm):
    gradients = Gradients()
    fit_gradients(make, tmp_path, gradients, gradient_clip_val=0.01, gradient_clip_algorithm=algorithm)
    raw, clipped = gradients.before[0], gradients.after[0]
    assert raw.abs().max() > 0.01
    expected = raw.clamp(-0.01, 0.01) if algorithm == "value" else raw * 0.01 / (raw.norm() + 1e-6)
    torch.testing.assert_close(clipped, expected)
    assert gradients.logged[0] == pytest.approx(raw.norm().item(), rel=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_fp16_clips_gradients_without_their_loss_scale(make, tmp_path, fused):
    """Fused optimizers get scaled gradients, others unscaled ones; both step by the same limit."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    gradients, optimizer = Gradients(), partial(torch.optim.SGD, lr=1.0, fused=fused)
    settings = {"optimizer": optimizer, "gradient_clip_val": 0.5, "plugins": plugins}
    module, before = fit_gradients(make, tmp_path, gradients, **settings)
    scale = 1024.0 if fused else 1.0
    norm = gradients.before[0].norm().item() / scale
    assert norm > 0.5
    assert gradients.logged[0] == pytest.approx(norm, rel=1e-4)
    updated = [(weight - before[name]).flatten() for name, weight in weights_of(module).items()]
    assert torch.cat(updated).norm().item() == pytest.approx(0.5, rel=1e-2)


def test_accumulated_batches_have_the_gradient_of_one_batch_of_all_their_images(make, tmp_path):
    whole, batches = Gradients(), Gradients()
    fit_gradients(make, tmp_path, whole, {"batch_size": 32})
    fit_gradients(make, tmp_path, batches, {"batch_size": 3}, accumulate_grad_batches=8, max_steps=-1)
    assert len(whole.before) == len(batches.before) == 1
    assert len(batches.after) > 2
    torch.testing.assert_close(batches.before[0], whole.before[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_changes_no_weight(make, tmp_path, value):
    module, data = make(optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=True))
    before = weights_of(module)
    with pytest.raises(UserError, match=r"the gradient of step 0 is (inf|nan); expected a finite number"):
        trainer(tmp_path, Gradients(value), gradient_clip_val=1.0).fit(module, data)
    assert_equal(weights_of(module), before)


def test_a_test_leaves_a_caption_of_each_image(make, tmp_path):
    module, data = make()
    testing = trainer(tmp_path)
    testing.test(module, data, verbose=False)
    assert list(module.test_captions) == [image.image_id for image in data.splits["test"]] == list(module.test_losses)
    nats = sum(loss * tokens for loss, tokens in module.test_losses.values())
    tokens = sum(tokens for _, tokens in module.test_losses.values())
    assert nats / tokens == pytest.approx(float(testing.callback_metrics["test/loss"]), rel=1e-5)
    predicted = testing.predict(module, data.test_dataloader())
    assert {name: text for batch in predicted for name, text in batch.items()} == module.test_captions
