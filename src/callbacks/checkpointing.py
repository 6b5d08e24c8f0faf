"""Write `last.ckpt`, from which training resumes exactly at an optimizer step."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.plugins.io import TorchCheckpointIO

from src.models.checkpoint import find_os_error, read_checkpoint
from src.utils.errors import Stopped, UserError, handle_signals
from src.utils.files import atomic_write
from src.utils.lightning_compat import CsvLogger, end_restart
from src.utils.logging import get_logger

log = get_logger(__name__)
STATE = "last_checkpoint"  # key in a checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write Lightning's checkpoint files atomically and read them without running code from them."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write to a temporary file, then rename; a disk error leaves an earlier file as it was."""
        try:
            with atomic_write(path, "wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            disk_error = find_os_error(error)
            if disk_error is None:
                raise
            advice = f"resume from the earlier ckpt_path={path}" if Path(path).is_file() else "start again"
            raise UserError(
                f"{path} cannot be written ({disk_error.strerror or disk_error}); expected room for it; "
                f"free some space, then {advice}"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """Read a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(path, map_location)


class LastCheckpoint(Checkpoint):
    """Write `<dirpath>/last.ckpt` periodically, before validation, after each epoch and on a stop signal.

    It is the state after an optimizer step that no validation follows, or after a whole epoch. A signal to any
    process ends all after the current step (`Stopped`). every_n_minutes, every_n_steps: between files, None for none.
    """

    def __init__(self, dirpath: str, every_n_minutes: float | None = 10.0, every_n_steps: int | None = None) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self.signal = 0
        self.resumed: dict[str, Any] = {}  # what the checkpoint that this run resumed from says
        self._handlers = contextlib.ExitStack()
        self._saved = time.monotonic()
        self._step = 0  # optimizer steps at the end of the last batch
        self._epoch_ended = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.path = trainer.strategy.broadcast(self.path)  # a run has one file

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals from here on, and do what Lightning leaves out when it resumes."""
        self._handlers.enter_context(handle_signals(lambda number: setattr(self, "signal", number)))
        self._saved, self._step = time.monotonic(), trainer.global_step
        if self.resumed.get("epoch_ended"):
            _step_plateau_schedulers(trainer, self.resumed["metrics"])
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience:
                log.info("early stopping had ended this run; train further with ~callbacks.early_stopping")
                trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimizer step when it is time, when a validation is one step away, and on a signal."""
        if trainer.global_step == self._step:  # accumulating gradients, which no file holds
            return
        self._step = trainer.global_step
        late = time.monotonic() - self._saved >= 60 * (self.every_n_minutes or math.inf)
        signal, late = self._agree(trainer, late)
        due = late or signal or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0)
        left = _batches_before_validation(trainer, batch_idx)
        if left and (due or left <= trainer.accumulate_grad_batches):
            self._save(trainer)
        self._stop(signal)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Leave a validation within training at once. Of several processes one alone must not leave."""
        if trainer.world_size == 1 and not trainer.sanity_checking:
            self._stop(self.signal)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        end_restart(trainer)
        signal, _ = self._agree(trainer)
        self._epoch_ended = True
        self._save(trainer)
        self._epoch_ended = False
        self._stop(signal)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._handlers.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._handlers.close()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Any) -> None:
        """Add the metrics logged last, and whether the epoch has ended."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint[STATE] = {"epoch_ended": self._epoch_ended, "metrics": metrics}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Any) -> None:
        """Keep what was added; let ModelCheckpoint find its files in a run folder that was moved."""
        self.resumed = checkpoint.get(STATE, {})
        if Path(str(trainer.ckpt_path)).resolve() != self.path.resolve():
            return
        for state in checkpoint["callbacks"].values():
            old, new = str(state.get("dirpath")), str(self.path.parent)
            if "best_k_models" in state and Path(old).name == self.path.parent.name:
                names = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path")
                state |= {name: state[name].replace(old, new, 1) for name in names}
                scores = state["best_k_models"].items()
                state["best_k_models"] = {path.replace(old, new, 1): score for path, score in scores}

    def _agree(self, trainer: Trainer, late: bool = False) -> tuple[int, bool]:
        """Return the signal that any process got, and whether rank 0 is late."""
        if trainer.world_size == 1:
            return self.signal, late
        flags = torch.tensor([self.signal, int(late and trainer.is_global_zero)], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return int(flags[0]), bool(flags[1])

    def _stop(self, signal: int) -> None:
        if signal and self.path.is_file():  # else go on to the first state that can be saved
            raise Stopped(signal, f"; resume with the same command and ckpt_path={self.path}", everywhere=True)

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):  # Lightning writes no checkpoint there either
            return
        for logger in trainer.loggers:  # what is logged before this state is on disk with it
            logger.write() if isinstance(logger, CsvLogger) else logger.save()
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = time.monotonic()


def resumed_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the finite metrics of the checkpoint that a run resumed from."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LastCheckpoint):
            metrics = callback.resumed.get("metrics", {})
            return {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {}


def _batches_before_validation(trainer: Trainer, batch_idx: int) -> float:
    """Return how many more batches come before a validation or the end of the epoch; 0: it follows now."""
    if trainer.is_last_batch:
        return 0
    left = float(trainer.num_training_batches) - batch_idx - 1
    every = trainer.val_check_batch
    if every and math.isfinite(every):
        over_epochs = trainer.check_val_every_n_epoch is None
        done = (trainer.fit_loop.total_batch_idx if over_epochs else batch_idx) + 1
        left = min(left, -done % every)
    return left


def _step_plateau_schedulers(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Do what Lightning does after the hooks of an epoch's end, and so after the checkpoint was written."""
    for config in trainer.lr_scheduler_configs:
        due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
        if config.reduce_on_plateau and due and config.monitor in metrics:
            config.scheduler.step(metrics[config.monitor])  # type: ignore[arg-type]
