"""Ctrl-C, SIGTERM and SIGUSR1 end a run in order: what they mean is decided here, in one place."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from src.utils.errors import UserError

# SIGTERM: a scheduler's time limit, `kill`. SIGUSR1: what many SLURM scripts ask to be sent before the limit.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
ECHO = 1.0  # seconds
HEAD_START = 2.0  # seconds


class StopSignal(BaseException):
    """A signal told the run to stop. Like KeyboardInterrupt no `except Exception` holds it up, but Lightning
    does not turn it into `sys.exit(1)` either."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopped(UserError):
    """The run was told to stop by a signal; all that was complete is kept.

    everywhere: each process of the run stops here, so that one of them is enough to say so. It was asked for, and
    is told as such, not as an error.
    exit_status: 128 + the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM.
    """

    label = ""

    def __init__(self, number: int, text: str, everywhere: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{text}")
        self.exit_status = 128 + number
        self.everywhere = everywhere


@contextmanager
def listening(heard: Callable[[int], None]) -> Iterator[None]:
    """Inside, the first signal of `SIGNALS` calls `heard(number)`; a second one does what it did before.

    Signals within `ECHO` seconds of the first are its echoes: SLURM signals every process of a job step, and
    torchrun, which is one of them, passes on what it got.

    Outside of the main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    first: list[float] = []  # when it came

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def handle(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            heard(number)
        elif time.monotonic() - first[0] > ECHO:
            restore()
            signal.raise_signal(number)

    before.update({number: signal.signal(number, handle) for number in SIGNALS})
    try:
        yield
    finally:
        restore()


def raise_stop(number: int) -> None:
    """Raise `StopSignal`: what a task does with a signal outside of training."""
    raise StopSignal(number)


def let_rank_0_leave_first(error: BaseException) -> None:
    """Wait a little, on other ranks than 0, where all stop.

    torchrun and srun end all processes as soon as one has ended, and rank 0 still writes and says how the run
    ended. The processes that Lightning starts are waited for, and need not wait.
    """
    by_launcher = any(os.environ.get(name, "0") not in ("", "0") for name in ("RANK", "SLURM_PROCID"))
    if by_launcher and getattr(error, "everywhere", False):
        time.sleep(HEAD_START)


def how_to_go_on(folder: Path) -> str:
    """What to do next with a run folder whose run ended early: half a sentence for a message."""
    checkpoints = folder / "checkpoints"
    if (folder / "metrics.json").is_file() and (checkpoints / "best.ckpt").is_file():
        return f"training is complete; score it with: python eval.py ckpt_path={checkpoints / 'best.ckpt'}"
    if (checkpoints / "last.ckpt").is_file():
        return (
            f"the last complete state is kept; go on with the same command and "
            f"ckpt_path={checkpoints / 'last.ckpt'}"
        )
    return "no checkpoint was written yet; give the same command again: a frozen backbone cache goes on where it stopped"
