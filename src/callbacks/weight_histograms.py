"""Log histograms of the trained weights and their gradients to TensorBoard."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger


class WeightHistograms(Callback):
    """Log trained weights at the start and after each epoch, gradients every `gradients_every_n_steps` steps.

    Tags are `weights/encoder/<name>`, `weights/decoder/<name>` and the same under `weights_gradients/`, which
    TensorBoard shows below the scores. Does nothing without its logger.
    """

    def __init__(self, gradients_every_n_steps: int | None = 100) -> None:
        self.every = gradients_every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("weights", trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("weights", trainer, pl_module, trainer.current_epoch + 1)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self.every and trainer.global_step % self.every == 0:
            self._log("weights_gradients", trainer, pl_module, trainer.global_step)

    def _log(self, kind: str, trainer: Trainer, pl_module: Any, step: int) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for name, weight in pl_module.trained_weights().items() if writers and trainer.is_global_zero else ():
            value = weight if kind == "weights" else weight.grad
            for writer in writers if value is not None else ():
                writer.add_histogram(f"{kind}/{name.replace('.', '/', 1)}", value.detach().float().cpu(), step)
