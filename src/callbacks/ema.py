"""Average the trained weights over the optimizer steps; validate, keep and test the average."""

from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from src.utils.errors import UserError

STATE = "ema_current_weights"  # key in a checkpoint


class WeightEma(Callback):
    """Exponential moving average of the trained weights alone; decay=None does nothing.

    After step t, average = d * average + (1 - d) * weights with d = min(decay, (1 + t) / (10 + t)), the warm-up of
    TensorFlow's ExponentialMovingAverage, so that short runs do not keep their start. A checkpoint holds the average
    as its weights, and beside it those that training resumes from. Lightning's own callback copies the whole model
    and writes it into every checkpoint.
    """

    def __init__(self, decay: float | None = None) -> None:
        self.decay, self.step = decay, 0
        self.average: dict[str, Tensor] = {}  # by name in the network; while validating, the current weights
        self._current: dict[str, Tensor] = {}  # of the checkpoint that this run resumes from

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Refuse checkpoints of weights alone: no callback could exchange theirs."""
        if self.decay and any(getattr(one, "save_weights_only", False) for one in trainer.checkpoint_callbacks):
            raise UserError("save_weights_only=true with callbacks.ema.decay; expected false; remove one of them")

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start from the weights as they are, those of a checkpoint being the average."""
        weights, self.step = pl_module.trained_weights(), trainer.global_step
        if self.decay:
            self.average = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, weight in self._current.items():
            weights[name].copy_(weight)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if self.average and trainer.global_step > self.step:  # else gradients are accumulated
            self.step = trainer.global_step
            decay = min(self.decay or 0, (1 + self.step) / (10 + self.step))
            for name, weight in pl_module.trained_weights().items():
                self.average[name].lerp_(weight, 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Leave the average in the model."""
        self._swap(pl_module)
        self.average = {}

    @torch.no_grad()
    def _swap(self, pl_module: Any) -> None:
        for name, weight in pl_module.trained_weights().items() if self.average else ():
            current = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(current)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Exchange the weights before the module names them as the hub does."""
        if self.average:
            checkpoint[STATE] = {name: weight.detach() for name, weight in pl_module.trained_weights().items()}
            checkpoint["state_dict"] |= {f"captioner.network.{name}": w for name, w in self.average.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._current = checkpoint.get(STATE, {})
