"""What is put into a run of several processes: it notes what each of them does, and lets one come to grief."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from src.callbacks.feature_cache import FeatureCache

WATCHED = ("+callbacks.seen._target_=tests.tasks.watching.Seen", "+callbacks.seen.folder=${paths.log_dir}",
           "callbacks.feature_cache._target_=tests.tasks.watching.NotedCache")  # fmt: skip


def misfortune(rank: int, what: str, step: int = 2) -> list[str]:
    """The settings of a `Misfortune`."""
    name = "+callbacks.misfortune"
    return [f"{name}._target_=tests.tasks.watching.Misfortune", f"{name}.rank={rank}", f"{name}.what={what}",
            f"{name}.step={step}"]  # fmt: skip


class Misfortune(Callback):
    """In optimizer step `step`, process `rank` (or each, -1) raises an error or gets a signal by its name."""

    def __init__(self, rank: int, what: str, step: int = 2) -> None:
        self.rank, self.what, self.step = rank, what, step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Where it happens."""
        if trainer.global_step != self.step or self.rank not in (-1, trainer.global_rank):
            return
        if self.what == "error":
            raise ValueError("the wheel came off")
        os.kill(os.getpid(), getattr(signal, self.what))


class Seen(Callback):
    """Appends to `<folder>/seen.txt`, for each batch of each process: [part, epoch, step, rank, image ids]."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "seen.txt"

    def _note(self, part: str, trainer: Trainer, batch: Any) -> None:
        line = json.dumps(
            [part, trainer.current_epoch, trainer.global_step, trainer.global_rank, batch.image_ids]
        )
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """A batch of training whose step is done."""
        self._note("train", trainer, batch)

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """A batch of validation."""
        if not trainer.sanity_checking:
            self._note("val", trainer, batch)

    def on_test_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """A batch of test images, of the trained model or of the base."""
        self._note("test", trainer, batch)


class NotedCache(FeatureCache):
    """Appends to `wrote.txt` beside the cache who wrote a shard of how many rows."""

    def _features(self, trainer: Trainer, data: Any, module: Any, shard: Any) -> Any:
        with (self.cache_dir.parent / "wrote.txt").open("a") as file:
            file.write(f"{trainer.global_rank} {len(shard)}\n")
        return super()._features(trainer, data, module, shard)
