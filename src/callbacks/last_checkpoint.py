"""A run can always go on: `last.ckpt` at every epoch's end, every few minutes, and when it is told to stop."""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from src.utils.errors import UserError

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


class Stopped(UserError):
    """The run was told to stop by a signal, after a whole step and with its state kept."""

    exit_status = 130  # as a shell tells of Ctrl-C


class LastCheckpoint(Checkpoint):
    """Keeps `<dirpath>/last.ckpt`.

    every_n_minutes: also in the middle of an epoch; None only at its end and when stopped. every_n_steps: the
    same in optimizer steps.

    Ctrl-C or SIGTERM lets the step at hand end, writes the file and leaves with a line that says how to go on;
    a second signal ends at once.
    """

    def __init__(
        self, dirpath: str, every_n_minutes: float | None = 10.0, every_n_steps: int | None = None
    ) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._saved = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to Ctrl-C and SIGTERM."""
        try:
            self._handlers = {number: signal.signal(number, self._heard) for number in SIGNALS}
        except ValueError:  # not the main thread: whoever runs us listens
            self._handlers = {}
        self._saved = time.monotonic()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when told to stop or when it is time.

        Raises:
            Stopped: a signal came.
        """
        if self.signal is not None:
            self._save(trainer)
            raise Stopped(
                f"stopped by {signal.Signals(self.signal).name} after step {trainer.global_step}; all is kept; "
                f"go on with the same command and ckpt_path={self.path}"
            )
        stepped = self.every_n_steps and trainer.global_step and trainer.global_step % self.every_n_steps == 0
        minutes = (time.monotonic() - self._saved) / 60
        if stepped or (self.every_n_minutes and minutes >= self.every_n_minutes and trainer.world_size == 1):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch's end."""
        self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._restore()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
