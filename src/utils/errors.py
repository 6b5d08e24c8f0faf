"""What ends a run early and is reported in one line: mistakes, stop signals, a lack of memory or disk."""

import errno
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# SIGTERM: a scheduler's time limit, `kill`. SIGUSR1: what many SLURM scripts request to be sent before the limit.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
REPEAT_SECONDS = 1.0
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# In the messages of torch on the CPU, on CUDA, on MPS, and inside cuBLAS and cuDNN.
MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")


class UserError(Exception):
    """A mistake in a path, a setting or a file, in one line: what was found; what was expected; what to do.

    Entries print the message without a traceback and exit with `exit_status`. label: what the message begins with.
    """

    label = "error: "
    exit_status = 1


class ConfigErrors(UserError):
    """Every mistake of a config at once, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        head = [] if len(self.problems) == 1 else [f"{len(self.problems)} settings are wrong"]
        super().__init__("\n  ".join(head + self.problems))


class StopSignal(BaseException):
    """A signal requested a stop. No `except Exception` catches it, and Lightning does not exit on it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopped(UserError):
    """The run was stopped by a signal; exit status 128 + its number, as in shells.

    everywhere: every process of the run stops here, so rank 0 alone prints the message.
    """

    label = ""

    def __init__(self, number: int, text: str, everywhere: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{text}")
        self.exit_status, self.everywhere = 128 + number, everywhere


@contextmanager
def handle_signals(handler: Callable[[int], None] | None = None) -> Iterator[None]:
    """Call `handler(number)`, or raise `StopSignal`, on the first signal of `SIGNALS`; a second one does as before.

    Signals within `REPEAT_SECONDS` are ignored: under SLURM a process gets one from srun and from torchrun.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers there
        yield
        return
    first: list[float] = []  # when it came

    def handle(number: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] > REPEAT_SECONDS:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        elif not first:
            first.append(time.monotonic())
            if handler is None:
                raise StopSignal(number)
            handler(number)

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def how_to_resume(folder: Path) -> str:
    """Return what to do next with the folder of a run that ended early, as half a sentence of a message."""
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "no checkpoint was written yet; give the same command again: a feature cache is completed"
    if (folder / "metrics.json").is_file():
        return f"training is complete; score it with: python eval.py ckpt_path={folder}"
    return f"resume with the same command and ckpt_path={last}"


def causes(error: BaseException | None, implicit: bool = False) -> Iterator[BaseException]:
    """Yield an error and what it was raised from; implicit: also what was being handled when it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if implicit else None)


def resource_error(error: BaseException, batch_size: int | None) -> UserError | None:
    """Return a one-line error with advice where memory or disk ran out, None for any other error."""
    for cause in causes(error):
        if isinstance(cause, UserError):
            return None
        if isinstance(cause, OSError) and cause.errno in DISK_ERRORS:
            where = f" at {cause.filename}" if cause.filename else ""
            return UserError(
                f"the disk is full{where} ({cause.strerror}); expected room for checkpoints, the feature cache and "
                "logs; free some space, or set paths.log_dir and callbacks.feature_cache.cache_dir to another disk"
            )
        by_message = isinstance(cause, RuntimeError) and any(text in str(cause) for text in MEMORY_MESSAGES)
        if by_message or isinstance(cause, MemoryError):  # torch.OutOfMemoryError is a RuntimeError
            message, half = str(cause).split("\n")[0][:200], max(1, (batch_size or 1) // 2)
            return UserError(
                f"out of memory at datamodule.batch_size={batch_size} ({message}); expected it to fit; set "
                f"datamodule.batch_size={half} with trainer.accumulate_grad_batches doubled (the same step), or "
                "datamodule.captions_per_image=1, datamodule.max_caption_tokens=64, model.generation.num_beams=1"
            )
    return None
