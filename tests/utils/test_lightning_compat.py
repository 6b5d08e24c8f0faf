"""Each workaround of Lightning is still needed: without it the public behaviour differs."""

import os
import pickle
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl

from src.utils import lightning_compat
from src.utils.lightning_compat import all_processes_end, leave_signals_alone
from src.utils.stopping import Stopped


def trainer():
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


@pytest.mark.skipif(os.name == "nt", reason="Lightning handles no signals there")
@pytest.mark.parametrize("left_alone", [True, False])
def test_lightning_replaces_signal_handlers_unless_it_is_kept_from_it(left_alone):
    before, one = signal.getsignal(signal.SIGTERM), trainer()
    if left_alone:
        leave_signals_alone(one)
        pickle.dumps(one._signal_connector.register_signal_handlers)
    try:
        one._signal_connector.register_signal_handlers()
        assert (signal.getsignal(signal.SIGTERM) == before) is left_alone
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_private_members_that_are_used_exist():
    loop = trainer().fit_loop
    assert callable(loop._load_combined_loader_states)
    assert loop._restarting is False


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("stopped", [False, True])
def test_when_this_process_fails_those_that_it_started_end_unless_all_stop(monkeypatch, stopped):
    monkeypatch.setattr(lightning_compat, "GRACE_SECONDS", 0.0)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    launcher = SimpleNamespace(procs=[child], kill=child.send_signal)
    error = Stopped(15, "", everywhere=True) if stopped else ValueError("the wheel came off")
    try:
        with (
            pytest.raises(type(error)),
            all_processes_end(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))),
        ):
            raise error
        assert (child.poll() if stopped else child.wait(5)) == (None if stopped else -signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
