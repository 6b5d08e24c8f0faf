"""A training step that does not log never waits for the device, and what it puts off is reported later."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.utils._python_dispatch import TorchDispatchMode

from src.callbacks.feature_cache import FeatureCache
from src.utils.errors import UserError
from tests import tiny

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "one_hot", "unique")


class CountSyncs(TorchDispatchMode, pl.Callback):
    """Counts, in the third step, the operators that read a value or make a shape of one."""

    def __init__(self):
        super().__init__()
        self.operators, self.syncs = 0, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 2:
            assert batch.features is not None
            self.__enter__()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.__exit__(None, None, None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        self.operators += 1
        if name in WAITING or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.syncs.append(str(func))
        return func(*args, **(kwargs or {}))


class MetaAccelerator(CPUAccelerator):
    """A device whose tensors have no values: whatever reads one raises."""

    def setup_device(self, device):
        pass


class MetaStrategy(SingleDeviceStrategy):
    def teardown(self):
        """Leave the model where it is: nothing can be copied back."""


@dataclass
class Stream:
    """Batches without a number of them, which Lightning would read from the device."""

    loader: Any

    def __iter__(self):
        return iter(self.loader)


def build(tiny_checkpoint, flickr_folder, fused=True, **settings):
    settings |= {"optimizer": partial(torch.optim.AdamW, lr=1e-3, fused=fused)}
    return tiny.make(tiny_checkpoint, flickr_folder, settings, batch_size=2, split_ratios=[1, 0, 0])


def trainer(tmp_path, *callbacks, **settings):
    settings = {"limit_val_batches": 0, "gradient_clip_val": 1.0, "log_every_n_steps": 10} | settings
    return tiny.trainer(tmp_path, *callbacks, **settings)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_a_step_with_cached_features_reads_no_value(tiny_checkpoint, flickr_folder, tmp_path, kernels):
    count, cache = CountSyncs(), FeatureCache(str(tmp_path / "cache"))
    data_and_module = build(tiny_checkpoint, flickr_folder, kernels=kernels)
    trainer(tmp_path, cache, count, max_steps=4).fit(*data_and_module)
    assert count.operators > 100
    assert count.syncs == []


def test_three_steps_run_on_a_device_without_values(tiny_checkpoint, flickr_folder, tmp_path, monkeypatch):
    """The whole step, Lightning's part, clipping and optimizer included: no value goes back to the host."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: False)  # which does not know the device
    module, data = build(tiny_checkpoint, flickr_folder, fused=None)
    module.finite.check = lambda: None  # an optimizer that is not fused cannot skip a step by itself
    module.on_train_start = module.on_train_epoch_end = lambda: None
    strategy = MetaStrategy("meta", accelerator=MetaAccelerator())
    fitting = trainer(tmp_path, strategy=strategy, accelerator="auto", max_steps=3)
    fitting.fit(module.to("meta"), Stream(data.train_dataloader()))
    assert all(weight.grad.device.type == "meta" for weight in module.trained_weights().values())


@pytest.mark.parametrize(("fused", "reported"), [(True, 5), (False, 2)])  # at the next step that logs, or at once
def test_no_weight_changes_from_a_step_that_is_not_finite_until_it_is_reported(
    tiny_checkpoint, flickr_folder, tmp_path, fused, reported
):
    module, data = build(tiny_checkpoint, flickr_folder, fused)
    forward, before, images = module.captioner.forward, {}, []

    def spoil(batch):
        if module.global_step == 2:
            before.update(tiny.weights_of(module))
            images.extend(batch.image_ids)
        nll, tokens = forward(batch)
        return nll * (float("nan") if module.global_step == 2 else 1), tokens

    module.captioner.forward = spoil
    with pytest.raises(UserError, match=f"the loss of step 2 is nan on the images {', '.join(images)}"):
        trainer(tmp_path, log_every_n_steps=6).fit(module, data)
    assert module.global_step == reported
    assert all(torch.equal(weight, before[name]) for name, weight in module.model.named_parameters())
