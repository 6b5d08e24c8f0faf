"""Every workaround of Lightning's internals: why, in which release, and the test that shows when it can go.

Seen in pytorch-lightning 2.6.6. tests/utils/test_lightning_compat.py has one test for each.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

GRACE_SECONDS = 3.0


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning from replacing this project's handlers of SIGTERM and SIGUSR1 (`src/utils/stopping.py`).

    Its own handler of SIGTERM only sets a flag that neither validation nor test reads. There is no public switch.
    """
    trainer._signal_connector.register_signal_handlers = _do_nothing  # type: ignore[method-assign]


def load_loader_position(trainer: pl.Trainer) -> None:
    """Restore the position of the training loader from the checkpoint that `fit` resumes from.

    Lightning restores it when it creates the loader. A schedule that counts its steps has the loader created
    before the checkpoint is read, and then the position is never restored.
    """
    trainer.fit_loop._load_combined_loader_states()


def end_restart(trainer: pl.Trainer) -> None:
    """Let plateau schedulers step at the end of an epoch that was resumed in its middle; Lightning skips that."""
    trainer.fit_loop._restarting = False


@contextmanager
def all_processes_end(trainer: pl.Trainer) -> Iterator[None]:
    """Kill the processes that Lightning started on this machine when this one, their rank 0, fails.

    Lightning kills rank 0 when one of them fails, but leaves them waiting for a rank 0 that is gone.
    """
    try:
        yield
    except BaseException as error:
        launcher = trainer.strategy.launcher
        if launcher is not None and not getattr(error, "everywhere", False):
            if any(process.poll() is None for process in getattr(launcher, "procs", [])):
                time.sleep(GRACE_SECONDS)  # in which they report their own error
            launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        raise


def _do_nothing() -> None:
    """A function and no lambda, so that the trainer can be pickled."""
