"""Ctrl-C, SIGTERM and SIGUSR1 stop a run in order; what they do is decided here."""

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
REPEAT_SECONDS = 1.0
HEAD_START_SECONDS = 2.0


class StopSignal(BaseException):
    """A signal requested a stop. No `except Exception` catches it, and Lightning does not exit on it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopped(UserError):
    """The run was stopped by a signal; what was complete is kept.

    everywhere: every process of the run stops here, so rank 0 alone prints the message.
    exit_status: 128 + the signal's number, as in shells: 130 for Ctrl-C, 143 for SIGTERM.
    """

    label = ""

    def __init__(self, number: int, text: str, everywhere: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{text}")
        self.exit_status = 128 + number
        self.everywhere = everywhere


@contextmanager
def handle_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler(number)` on the first signal of `SIGNALS`; a second one does what it did before.

    Signals within `REPEAT_SECONDS` of the first are ignored: SLURM signals every process of a job step, and
    torchrun, which is one of them, passes on what it got. Outside of the main thread, where Python allows no
    handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    first: list[float] = []  # when it came

    def restore() -> None:
        for number, previous in before.items():
            signal.signal(number, previous)
        before.clear()

    def handle(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            handler(number)
        elif time.monotonic() - first[0] > REPEAT_SECONDS:
            restore()
            signal.raise_signal(number)

    before.update({number: signal.signal(number, handle) for number in SIGNALS})
    try:
        yield
    finally:
        restore()


def raise_stop(number: int) -> None:
    """Raise `StopSignal`: the handler outside of training."""
    raise StopSignal(number)


def let_rank_0_exit_first(error: BaseException) -> None:
    """Wait a little on other ranks than 0 where all stop.

    torchrun, srun and Lightning's launcher kill all processes once one has ended, and rank 0 still writes files.
    """
    launched = any(
        os.environ.get(name, "0") not in ("", "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    )
    if launched and getattr(error, "everywhere", False):
        time.sleep(HEAD_START_SECONDS)


def how_to_resume(folder: Path) -> str:
    """Return what to do next with the folder of a run that ended early, as half a sentence of a message."""
    checkpoints = folder / "checkpoints"
    if (folder / "metrics.json").is_file() and (checkpoints / "last.ckpt").is_file():
        return f"training is complete; score it with: python eval.py ckpt_path={folder}"
    if (checkpoints / "last.ckpt").is_file():
        return f"resume with the same command and ckpt_path={checkpoints / 'last.ckpt'}"
    return "no checkpoint was written yet; give the same command again: a feature cache is completed, not begun anew"
