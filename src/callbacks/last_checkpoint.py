"""A run can always go on: `last.ckpt` within each epoch, before each validation, and when it is told to stop."""

import contextlib
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping

from src.utils.files import atomic_write
from src.utils.logging import get_logger
from src.utils.stopping import Stopped, listening

log = get_logger(__name__)
BATCHES = "epoch_loop.batch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"


class LastCheckpoint(Checkpoint):
    """Keeps `<dirpath>/last.ckpt`, from which a run goes on as if it had never stopped.

    every_n_minutes: also in the middle of an epoch; None only before validation, at an epoch's end and when
    stopped. every_n_steps: the same in optimizer steps.

    Ctrl-C, SIGTERM or SIGUSR1 lets the step at hand end, writes the file and leaves with a line that says how to
    go on; a second signal ends at once. With several processes a signal to one of them stops all after the same
    step.
    """

    def __init__(
        self, dirpath: str, every_n_minutes: float | None = 10.0, every_n_steps: int | None = None
    ) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self.signal: int | None = None
        self._listening = contextlib.ExitStack()
        self._saved = time.monotonic()
        self._step = 0  # optimizer steps when the last batch ended
        self._batch_ended = False  # a batch is over and what follows it (validation, epoch's end) is not
        self._epoch_ended = False
        self.resumed: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """One run has one file: that of rank 0."""
        self.path = trainer.strategy.broadcast(self.path)

    # --- saving ---------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals; make up for what Lightning leaves out when it resumes."""
        self._listening.enter_context(listening(self._heard))
        self._saved, self._step = time.monotonic(), trainer.global_step
        if self.resumed.get("epoch_ended"):
            _step_plateau_schedulers(trainer, self.resumed["metrics"])
        if any(_has_stopped(callback) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            log.info("early stopping had ended this run: ~callbacks.early_stopping trains on")
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when told to stop, when it is time, and before a validation, always after a whole optimizer step.

        Raises:
            Stopped: a signal came.
        """
        if trainer.global_step == self._step:  # in the midst of accumulating gradients, which no file holds
            return
        self._step = trainer.global_step
        minutes = (time.monotonic() - self._saved) / 60
        due = bool(self.every_n_minutes and minutes >= self.every_n_minutes)
        number, due = self._agree(trainer, due)
        stepped = bool(self.every_n_steps) and trainer.global_step % (self.every_n_steps or 1) == 0
        self._batch_ended = _closes_a_part(trainer)
        if number or due or stepped or self._batch_ended:
            self._save(trainer)
        self._leave(trainer, number)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave a validation within training at once: `last.ckpt` was written before it.

        Several processes finish it first, since one alone must not leave.

        Raises:
            Stopped: a signal came.
        """
        if trainer.world_size == 1 and self._batch_ended:
            self._leave(trainer, self.signal or 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch's end.

        Raises:
            Stopped: a signal came.
        """
        self._batch_ended, self._epoch_ended = False, True
        trainer.fit_loop._restarting = (
            False  # with it no plateau scheduler is stepped at the end of a resumed epoch
        )
        number, _ = self._agree(trainer)
        self._save(trainer)
        self._epoch_ended = False
        self._leave(trainer, number)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state that a run with nothing left to train went on from, so that its folder is complete."""
        if trainer.ckpt_path and trainer.is_global_zero and not self.path.is_file():
            with atomic_write(self.path, "wb") as copy, open(trainer.ckpt_path, "rb") as original:
                shutil.copyfileobj(original, copy, 1 << 20)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._listening.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._listening.close()

    def _heard(self, number: int) -> None:
        self.signal = number

    def _agree(self, trainer: Trainer, due: bool = False) -> tuple[int, bool]:
        """The signal that any process heard, 0 for none, and whether it is time by the clock of rank 0."""
        number = self.signal or 0
        if trainer.world_size == 1:
            return number, due
        told = torch.tensor(
            [number, int(due and trainer.is_global_zero)], device=trainer.strategy.root_device
        )
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return int(told[0]), bool(told[1])

    def _leave(self, trainer: Trainer, number: int) -> None:
        if number:
            raise Stopped(
                number,
                f" after step {trainer.global_step}; all is kept; go on with the same command and "
                f"ckpt_path={self.path}",
                everywhere=True,
            )

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = time.monotonic()

    # --- going on -------------------------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where in the epoch a checkpoint stands, also one that another callback writes."""
        checkpoint["place"] = {
            "batch_ended": self._batch_ended and not trainer.validating,
            "epoch_ended": self._epoch_ended,
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell Lightning's loops that what comes after the last batch, validation too, is still to be done.

        By itself Lightning takes a checkpoint of an epoch's last batch for one of a finished epoch, and leaves
        out its validation and all that hangs on it: best checkpoint, early stopping, `train/loss`.
        """
        self.resumed = checkpoint.get("place", {})
        if self.resumed.get("batch_ended"):
            loops = checkpoint["loops"]["fit_loop"]
            for count in (loops[BATCHES]["total"], loops[BATCHES]["current"]):
                count["completed"] = count["processed"]
            # one batch ready and not done is what Lightning calls "in mid-evaluation": it then evaluates again
            loops[VALIDATION]["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            loops[VALIDATION]["current"] |= dict.fromkeys(("ready", "started", "processed", "completed"), 0)


def earlier_metrics(trainer: Trainer) -> dict[str, float]:
    """What was last logged before the checkpoint that a run went on from: all there is if nothing was left to do."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, LastCheckpoint)]  # type: ignore[attr-defined]
    metrics = found[0].resumed.get("metrics", {}) if found else {}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _closes_a_part(trainer: Trainer) -> bool:
    """Whether a validation or the epoch's end follows the batch that just ended."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._num_ready_batches_reached() or loop._should_check_val_fx(fetcher)


def _has_stopped(callback: Any) -> bool:
    return isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience


def _step_plateau_schedulers(trainer: Trainer, metrics: dict[str, float]) -> None:
    """What Lightning does after the hooks of an epoch's end, and so after the checkpoint was written."""
    for config in trainer.lr_scheduler_configs:
        due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
        if config.reduce_on_plateau and due and config.monitor in metrics:
            config.scheduler.step(metrics[config.monitor])  # type: ignore[arg-type]
