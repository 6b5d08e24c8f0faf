"""Histograms of what trains, in TensorBoard."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger


class WeightHistograms(Callback):
    """Trained weights at the start and after each epoch, gradients every `gradients_every_n_steps` steps.

    Tags are `weights/encoder/<name>`, `weights/decoder/<name>` and the same under `gradients/`. Does nothing
    where no TensorBoard logger is.
    """

    def __init__(self, gradients_every_n_steps: int | None = 100) -> None:
        self.every = gradients_every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the weights that training starts from."""
        self._draw("weights", trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the weights after the epoch."""
        self._draw("weights", trainer, pl_module, trainer.current_epoch + 1)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Draw the gradients, now and then."""
        if self.every and trainer.global_step % self.every == 0:
            self._draw("gradients", trainer, pl_module, trainer.global_step)

    def _draw(self, kind: str, trainer: Trainer, pl_module: Any, step: int) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not writers or not trainer.is_global_zero:
            return
        for name, weight in pl_module.trained_weights().items():
            value = weight if kind == "weights" else weight.grad
            if value is None:
                continue
            half, _, rest = name.partition(".")
            for writer in writers:
                writer.add_histogram(f"{kind}/{half}/{rest}", value.detach().float().cpu(), step)
