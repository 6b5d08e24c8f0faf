"""A small training with everything in it, run by `train.py` in a process of its own, which may be killed."""

import atexit
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.tiny import with_dropout

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 80  # 64 to train on and 8 of val: two shards of the feature cache
SETTINGS = (
    "datamodule=flickr", "datamodule.batch_size=16", "datamodule.num_workers=0", "datamodule.captions_per_image=1",
    "model=vit_gpt2_tiny", "model.generation.num_beams=1", "model.generation.max_length=8", "trainer=default",
    "trainer.precision=32-true", "trainer.max_epochs=2", "trainer.log_every_n_steps=1",
    "trainer.num_sanity_val_steps=0", "trainer.enable_progress_bar=false", "~callbacks.progress_bar",
    "~callbacks.weight_histograms", "callbacks.caption_samples.max_images=4", "logger=csv",
    "callbacks.ema.decay=0.9", "metrics.meteor=false", "metrics.spice=false", "metrics.bootstrap_samples=0",
    "zero_shot=false", "extras.print_config=false", "tags=[faults]", "seed=1",
)  # fmt: skip


def make_world(folder: Path) -> list[str]:
    """Write images and a base model with dropout in `folder`; return the settings that name them."""
    from src.demo.synthetic.datamodules import write_scenes

    write_scenes(folder / "flickr", NUM_IMAGES, size=48)
    with_dropout(ROOT / "src" / "demo" / "vit_gpt2_tiny", folder / "base")
    return [f"datamodule.data_dir={folder / 'flickr'}", f"model.checkpoint={folder / 'base'}"]


@dataclass
class Place:
    """Where a training keeps its files: `folder` holds the logs, the feature cache and all output."""

    folder: Path

    def settings(self) -> list[str]:
        """The settings that name the place."""
        folder = self.folder
        return [f"paths.log_dir={folder / 'logs'}", f"callbacks.feature_cache.cache_dir={folder / 'cache'}"]

    @property
    def output(self) -> Path:
        return self.folder / "output.log"

    def runs(self) -> list[Path]:
        """Run folders, in the order in which they began."""
        return sorted((self.folder / "logs" / "train" / "runs").glob("*"))

    def has_checkpoint(self) -> bool:
        return any((run / "checkpoints" / "last.ckpt").is_file() for run in self.runs())


class Process:
    """`train.py`, or another entry, with `settings`, in a fork of this process, which has imported torch already.

    This process must not have used several threads.
    """

    def __init__(
        self, place: Place, settings: Sequence[str], environment: dict[str, str], entry: str = "train.py"
    ) -> None:
        place.folder.mkdir(parents=True, exist_ok=True)
        self._status: int | None = None
        sys.stdout.flush()
        with place.output.open("ab") as output:
            self.pid = os.fork()
            if self.pid == 0:
                os.environ.update(environment)
                _become([entry, *settings, *place.settings()], output.fileno())

    def status(self) -> int | None:
        """Exit status, minus the signal's number when one ended it; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self) -> int:
        """The exit status, once there is one."""
        while (status := self.status()) is None:
            time.sleep(0.005)
        return status

    def kill(self) -> int:
        """End it as a power cut would; the exit status."""
        if self.status() is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def import_all() -> None:
    """Import what a training needs, so that a fork has it."""
    import src.callbacks.feature_cache
    import src.tasks.train
    import src.utils.task_run  # noqa: F401
    from src.utils.hub import transformers  # noqa: F401


def _become(arguments: list[str], output: int) -> None:
    """Be `train.py` from here on."""
    status = 1
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        sys.argv = arguments
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(status)
