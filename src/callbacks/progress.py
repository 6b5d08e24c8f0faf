"""Show how a run proceeds: one line per epoch in the log, and on a terminal a bar of one line."""

import math
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from tqdm import tqdm

from src.models.vit_gpt2 import VitGpt2
from src.utils.logging import get_logger

log = get_logger(__name__)
SHOWN = {"val/loss": ("val", ".3f"), "val/cider_d": ("CIDEr-D", ".2f")}  # metric -> label, format


class EpochLog(Callback):
    """Log the length of the training, and a line per epoch: time, losses, CIDEr-D, and whether it is the best."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._validated = time.monotonic(), False  # a resumed epoch does not start again
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        most = f", at most {trainer.max_steps:,} in all" if trainer.max_steps > 0 else ""
        log.info("steps    %s, %s steps each%s", _epochs(trainer), f"{steps:,}", most)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._validated = time.monotonic(), False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VitGpt2)
        seconds = time.monotonic() - self._started
        metrics = trainer.callback_metrics if self._validated else {}  # which keep those of an earlier epoch
        loss = pl_module.train_loss.compute(trainer)  # its module logs it only after this hook
        parts = [_epoch(trainer), duration(seconds), f"loss {loss:.3f}"]
        parts += [f"{label} {metrics[key]:{form}}" for key, (label, form) in SHOWN.items() if key in metrics]
        for saver in trainer.checkpoint_callbacks:  # it may save only after this hook
            if isinstance(saver, ModelCheckpoint) and saver.monitor in metrics:
                sign, value, best = 1 if saver.mode == "min" else -1, metrics[saver.monitor], saver.best_model_score
                parts += ["best"] if best is None or sign * value <= sign * best else []
        left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        parts += [f"about {duration(seconds * left)} left"] if left > 0 else []
        log.info(" · ".join(parts))


class OneLineBar(ProgressBar):
    """Show what runs, its batches and the time left, in one line that is gone afterwards; nothing off a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._label, self._enabled = "", True

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_drawn = self._show(_epoch(trainer), self.total_train_batches, batch_idx)
        loss = trainer.callback_metrics.get("train/loss_step")  # of the last step that logged
        if is_drawn and self._bar is not None and loss is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def on_validation_batch_end(self, trainer: Trainer, *inputs: Any) -> None:
        if not trainer.sanity_checking:
            self._show("validation", sum(trainer.num_val_batches), inputs[3])

    def on_test_batch_end(self, trainer: Trainer, *inputs: Any) -> None:
        self._show("scoring", sum(trainer.num_test_batches), inputs[3])

    def _show(self, label: str, total: float, batch_idx: int) -> bool | None:
        if self._bar is None or self._label != label:
            self._close()
            self._label, known = label, int(total) if math.isfinite(total) else None
            off = None if self._enabled else True  # None: where there is no terminal
            self._bar = tqdm(total=known, desc=label, leave=False, dynamic_ncols=True, disable=off)
        return self._bar.update(batch_idx + 1 - self._bar.n)

    def _close(self, *_: Any, **__: Any) -> None:  # also as a hook
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    on_train_epoch_end = on_validation_end = on_test_end = teardown = on_exception = _close


def _epochs(trainer: Trainer) -> str:
    most = trainer.max_epochs or -1
    return "epochs without end" if most < 0 else "1 epoch" if most == 1 else f"{most} epochs"


def _epoch(trainer: Trainer) -> str:
    most = trainer.max_epochs or -1
    return f"epoch {trainer.current_epoch + 1}" + (f" of {most}" if most > 0 else "")


def duration(seconds: float) -> str:
    """Return a time in two units at most: `14 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
