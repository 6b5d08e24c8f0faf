"""What a signal does to a run."""

import os
import signal
import threading

import pytest

from src.utils.stopping import (
    HEAD_START_SECONDS,
    SIGNALS,
    Stopped,
    StopSignal,
    handle_signals,
    how_to_resume,
    let_rank_0_exit_first,
    raise_stop,
)

NO_SIGNALS = pytest.mark.skipif(os.name == "nt", reason="os.kill ends the process there")


@NO_SIGNALS
def test_the_first_signal_is_handled_repeats_are_not_and_a_second_does_what_it_did_before(monkeypatch):
    handled, outer = [], []
    before = signal.signal(signal.SIGTERM, lambda number, frame: outer.append(number))
    try:
        with handle_signals(handled.append):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (handled, outer) == ([signal.SIGTERM], [])
            monkeypatch.setattr("src.utils.stopping.REPEAT_SECONDS", 0.0)
            os.kill(os.getpid(), signal.SIGTERM)
        assert (handled, outer) == ([signal.SIGTERM], [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)


@NO_SIGNALS
@pytest.mark.parametrize("number", SIGNALS)
def test_a_task_is_stopped_and_the_handlers_are_restored(number):
    before = signal.getsignal(number)
    with pytest.raises(StopSignal) as caught, handle_signals(raise_stop):
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert signal.getsignal(number) == before
    assert Stopped(number, "; all is kept").exit_status == 128 + number


def test_no_except_exception_catches_a_stop():
    assert not issubclass(StopSignal, Exception)


def test_outside_of_the_main_thread_nothing_changes():
    before, found = signal.getsignal(signal.SIGTERM), []

    def work():
        with handle_signals(raise_stop):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize(
    ("environment", "everywhere", "waits"),
    [
        ({"RANK": "1"}, True, True),
        ({"SLURM_PROCID": "3"}, True, True),
        ({"RANK": "1"}, False, False),
        ({"RANK": "0"}, True, False),
        ({"LOCAL_RANK": "1"}, True, True),
    ],
)
def test_rank_0_exits_first(monkeypatch, environment, everywhere, waits):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    let_rank_0_exit_first(Stopped(15, "", everywhere))
    assert slept == [HEAD_START_SECONDS] * waits


def test_how_to_resume(tmp_path):
    assert "same command again" in how_to_resume(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert f"ckpt_path={tmp_path}/checkpoints/last.ckpt" in how_to_resume(tmp_path)
    (tmp_path / "metrics.json").touch()
    assert f"eval.py ckpt_path={tmp_path}" in how_to_resume(tmp_path)
