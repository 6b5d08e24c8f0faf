"""A tiny module, its data and a quiet trainer, for tests of what happens around training."""

from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from src.callbacks.checkpointing import AtomicCheckpointIO
from src.datamodule.flickr import FlickrDataModule
from src.models.vit_gpt2 import VitGpt2


def make(
    checkpoint: Path | str | None, images: Path, model: Any = None, **data: Any
) -> tuple[VitGpt2, FlickrDataModule]:
    """A module of given weights, and the data module connected to it."""
    torch.manual_seed(0)
    settings = {"optimizer": partial(torch.optim.AdamW, lr=1e-2), "generation": {"max_length": 8, "num_beams": 1}}
    module = VitGpt2(checkpoint and str(checkpoint), **(settings | (model or {})))
    datamodule = FlickrDataModule(images, **({"batch_size": 8, "num_workers": 0, "split_seed": 3} | data))
    datamodule.setup()
    datamodule.processor = module.processor
    return module, datamodule


def trainer(folder: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    """On the CPU in fp32, one epoch, nothing on the screen and no checkpoints."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    usual = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    usual |= {"plugins": [AtomicCheckpointIO()]} | quiet
    return pl.Trainer(callbacks=list(callbacks), default_root_dir=folder, **(usual | settings))


def weights_of(module: VitGpt2) -> dict[str, torch.Tensor]:
    """A copy of all weights by their names in the network."""
    return {name: weight.detach().clone() for name, weight in module.model.named_parameters()}
