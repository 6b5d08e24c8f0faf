"""Callbacks for runs of several processes: record what each of them does, and let one fail."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

WATCHED = ("+callbacks.seen._target_=tests.tasks.watching.Seen", "+callbacks.seen.folder=${paths.log_dir}")


def failure(rank: int, what: str) -> list[str]:
    """Return the overrides of a `Failure`."""
    name = "+callbacks.failure"
    return [f"{name}._target_=tests.tasks.watching.Failure", f"{name}.rank={rank}", f"{name}.what={what}"]


class Failure(Callback):
    """In the third optimizer step, process `rank` raises an error or gets a signal by its name."""

    def __init__(self, rank: int, what: str) -> None:
        self.rank, self.what = rank, what

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2 and self.rank == trainer.global_rank:
            if self.what == "error":
                raise ValueError("the wheel came off")
            os.kill(os.getpid(), getattr(signal, self.what))


class Seen(Callback):
    """Append to `<folder>/seen.txt`, for each batch of each process: [split, epoch, step, rank, image ids]."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "seen.txt"

    def _record(self, split: str, trainer: Trainer, batch: Any) -> None:
        place = [split, trainer.current_epoch, trainer.global_step, trainer.global_rank]
        with self.path.open("a") as file:
            file.write(json.dumps([*place, batch.image_ids]) + "\n")

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._record("train", trainer, batch)

    def on_validation_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._record("val", trainer, batch)

    def on_test_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._record("test", trainer, batch)
