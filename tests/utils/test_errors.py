"""What a signal does to a run; a lack of memory or disk is reported with the settings that help."""

import errno
import os
import signal

import pytest
import torch

from src.utils.errors import SIGNALS, Stopped, StopSignal, UserError, handle_signals, how_to_resume, resource_error

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
            monkeypatch.setattr("src.utils.errors.REPEAT_SECONDS", 0.0)
            os.kill(os.getpid(), signal.SIGTERM)
        assert (handled, outer) == ([signal.SIGTERM], [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)


@NO_SIGNALS
@pytest.mark.parametrize("number", SIGNALS)
def test_a_task_is_stopped_and_the_handlers_are_restored(number):
    before = signal.getsignal(number)
    with pytest.raises(StopSignal) as caught, handle_signals():
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert not isinstance(caught.value, Exception)  # no `except Exception` catches it
    assert signal.getsignal(number) == before
    assert Stopped(number, "").exit_status == 128 + number


def test_how_to_resume(tmp_path):
    assert "same command again" in how_to_resume(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert f"ckpt_path={tmp_path}/checkpoints/last.ckpt" in how_to_resume(tmp_path)
    (tmp_path / "metrics.json").touch()
    assert f"eval.py ckpt_path={tmp_path}" in how_to_resume(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_names_settings_with_their_values(error):
    text = str(resource_error(error, 16))
    assert "out of memory at datamodule.batch_size=16" in text
    assert "set datamodule.batch_size=8 with trainer.accumulate_grad_batches" in text
    assert "\n" not in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_with_its_place(number):
    error = RuntimeError("tensorboard's thread died")
    error.__cause__ = OSError(number, "No room", "/data/x")
    text = str(resource_error(error, 16))
    assert "the disk is full at /data/x (No room)" in text
    assert "paths.log_dir" in text


@pytest.mark.parametrize(
    "error", [ValueError("out of memory"), OSError(errno.ENOENT, "no such file"), RuntimeError("x"), UserError("y")]
)
def test_other_errors_are_not_resource_errors(error):
    assert resource_error(error, 16) is None
