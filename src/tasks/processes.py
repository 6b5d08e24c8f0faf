"""The processes that `trainer=ddp` starts on this machine share one fate; torchrun and SLURM see to theirs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
GRACE = 3.0  # seconds in which a process may end by itself once another one has


def share_one_fate(trainer: pl.Trainer) -> None:
    """Let the processes that this trainer will start end together; nothing changes where it starts none.

    Raises:
        UserError: several processes in a multirun whose jobs follow one another in this process.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    if _is_multirun():
        raise UserError(
            "trainer.strategy=ddp in a multirun (-m); expected one process a job, since the processes of the first job "
            "are in the way of the second; set trainer=default, or start each job by a command of its own"
        )
    parts = launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
    trainer.strategy._launcher = Launcher(*parts)


def _is_multirun() -> bool:
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    return str(HydraConfig.get().launcher._target_).endswith(".BasicLauncher")


class Launcher(_SubprocessScriptLauncher):
    """Lightning's launcher with another end.

    Lightning's kills this process within five seconds of another's failure, also while it writes the last files
    of a run that was told to stop; and when this process fails it leaves the others waiting for it.

    grace: seconds in which a process may end by itself before it is told to, and again before it is killed.
    """

    grace = GRACE

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.children: list[subprocess.Popen[bytes]] = []
        self._inside = False  # the trainer runs: a lost process means waiting in vain
        self._leaving = threading.Event()

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any
    ) -> Any:
        """Call `function` with all processes there; when it fails, none is left."""
        self._inside = True
        try:
            return super().launch(function, *args, trainer=trainer, **kwargs)
        except BaseException:
            self._leaving.set()
            self._end_children()
            raise
        finally:
            self._inside = False

    def kill(self, signum: int) -> None:
        """Send a signal to the other processes of this machine that still run."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signum)

    def _call_children_scripts(self) -> None:
        self._start_children()
        self.children, self.procs = self.procs, []  # so that Lightning's own watcher finds none
        threading.Thread(target=self._watch, daemon=True, name="watch processes").start()

    def _start_children(self) -> None:
        """Start the processes of `procs`."""
        super()._call_children_scripts()

    def _end_children(self) -> None:
        """Wait for all, then tell those that are left to stop, then kill them."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + self.grace
            while any(child.poll() is None for child in self.children):
                if time.monotonic() > end:
                    self.kill(signum)
                    break
                time.sleep(0.05)

    def _watch(self) -> None:
        """End this process when another failed and this one has not noticed: in turn as with the others."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            lost: list[subprocess.Popen[bytes]] = []
            while not lost or not self._inside:
                if self._leaving.wait(0.5):
                    return
                lost = [child for child in self.children if child.poll()]
            if self._leaving.wait(self.grace):
                return
            child = lost[0]
            text = f"process {child.pid} of this run ended with status {child.returncode}; the others end too"
            print(text, file=sys.stderr, flush=True)
            os.kill(os.getpid(), signum)
