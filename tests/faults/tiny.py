"""Small runs whose end can be compared: dropout on, all logged values kept."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from src.callbacks.checkpointing import LastCheckpoint
from src.models.optimization import linear_with_warmup
from tests import tiny

DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop")


def with_dropout(checkpoint: Path, folder: Path) -> Path:
    """A copy of a captioner folder whose dropout is 0.2 everywhere."""
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for part in (config["encoder"], config["decoder"]):
        part |= {name: 0.2 for name in DROPOUT if name in part}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal bit for bit, tensors too."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        keys_agree = isinstance(other, dict) and one.keys() == other.keys()
        return keys_agree and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


class KeepAll(LastCheckpoint):
    """LastCheckpoint that keeps each file it ever wrote: `1.ckpt`, `2.ckpt`, ..."""

    def _save(self, trainer: pl.Trainer) -> None:
        super()._save(trainer)
        count = len(list(self.path.parent.glob("[0-9]*.ckpt")))
        shutil.copy(self.path, self.path.with_name(f"{count + 1}.ckpt"))


class History(pl.Callback):
    """What a run logged: `(epoch, step, name) -> value`."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, int, str], float] = {}

    def _log(self, trainer: pl.Trainer, *names: str) -> None:
        metrics = {**trainer.callback_metrics, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        at = (trainer.current_epoch, trainer.global_step)
        self.values |= {(*at, name): float(metrics[name]) for name in names if name in metrics}

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self._log(trainer, "lr")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._log(trainer, "train/loss_step")

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._log(trainer, "val/loss", "val/loss_best")

    def on_train_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._log(trainer, "train/loss", "lr")


class Run:
    """A fit from nothing or from a checkpoint, and what came of it."""

    def __init__(self, checkpoint: Path, images: Path, folder: Path, resume: Path | None = None,
                 scheduler=linear_with_warmup, patience: int = 9, min_delta: float = 0.0, more: tuple = (),
                 **settings) -> None:  # fmt: skip
        interval = "step" if scheduler is linear_with_warmup else "epoch"
        schedule = {"scheduler": scheduler, "interval": interval, "frequency": 1, "monitor": "val/loss"}
        model = {"optimizer": partial(torch.optim.AdamW, lr=3e-3), "lr_scheduler": schedule}
        self.module, data = tiny.make(checkpoint, images, model, split_seed=0)
        self.best = pl.callbacks.ModelCheckpoint(folder, "best", "val/loss", enable_version_counter=False)
        self.last = KeepAll(str(folder), every_n_minutes=None, every_n_steps=1)
        self.stopping = pl.callbacks.EarlyStopping("val/loss", min_delta, patience)
        self.history = History()
        callbacks = (self.history, *more, self.best, self.last, self.stopping)
        usual = {"max_epochs": 3, "log_every_n_steps": 1, "enable_checkpointing": True}
        self.trainer = tiny.trainer(folder, *callbacks, **(usual | settings))
        self.trainer.fit(self.module, data, ckpt_path=resume, weights_only=True)

    def end(self) -> dict[str, object]:
        """Everything that a resumed run has to share with an unbroken one, as comparable values."""
        optimizer = self.trainer.optimizers[0].state_dict()["state"]
        return {
            "weights": {name: w.detach().clone() for name, w in self.module.trained_weights().items()},
            "optimizer": {f"{i}.{k}": v for i, state in optimizer.items() for k, v in state.items()},
            "scheduler": str(self.trainer.lr_scheduler_configs[0].scheduler.state_dict()),
            "place": (self.trainer.current_epoch, self.trainer.global_step),
            "best": float(self.best.best_model_score),
            "waited": (self.stopping.wait_count, float(self.stopping.best_score)),
        }


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Return the names of what is not equal bit for bit."""
    return [name for name, value in one.items() if not same(value, other[name])]
