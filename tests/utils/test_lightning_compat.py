"""Precision by the hardware, a csv logger that resumes; each workaround of Lightning is still needed."""

import csv
import os
import pickle
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from src.utils import lightning_compat
from src.utils.errors import Stopped
from src.utils.lightning_compat import (
    CsvLogger,
    all_processes_end,
    leave_signals_alone,
)
from src.utils.precision import choose_precision, has_native_bf16


@pytest.mark.skipif(os.name == "nt", reason="Lightning handles no signals there")
@pytest.mark.parametrize("left_alone", [True, False])
def test_lightning_replaces_signal_handlers_unless_it_is_kept_from_it(left_alone):
    before = signal.getsignal(signal.SIGTERM)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    if left_alone:
        leave_signals_alone(trainer)
        pickle.dumps(trainer._signal_connector.register_signal_handlers)
    try:
        trainer._signal_connector.register_signal_handlers()
        assert (signal.getsignal(signal.SIGTERM) == before) is left_alone
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("stopped", [False, True])
def test_when_this_process_fails_those_that_it_started_end_unless_all_stop(monkeypatch, stopped):
    monkeypatch.setattr(lightning_compat, "GRACE_SECONDS", 0.0)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    launcher = SimpleNamespace(procs=[child], kill=child.send_signal)
    error = Stopped(15, "", everywhere=True) if stopped else ValueError("the wheel came off")
    try:
        trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
        with pytest.raises(type(error)), all_processes_end(trainer):
            raise error
        assert (child.poll() if stopped else child.wait(5)) == (None if stopped else -signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


def logged(folder, *steps, kind=CsvLogger, name="a"):
    """A logger with a row for each step, written."""
    logger = kind(str(folder))
    for step in steps:
        logger.log_metrics({name: 4.0 - step}, step)
    logger.finalize("success")
    return logger


def rows(logger):
    with logger.path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_lightnings_own_csv_logger_loses_the_rows_of_an_earlier_start(tmp_path):
    kind = lambda folder: CSVLogger(folder, name="", version="")  # noqa: E731
    logged(tmp_path, 0, 1, kind=kind)
    logged(tmp_path, 2, kind=kind)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_a_resumed_run_continues_its_csv_and_logs_the_repeated_steps_once(tmp_path):
    logged(tmp_path, 0, 1, 2, 3)
    again = CsvLogger(str(tmp_path), purge_step=2)
    again.log_metrics({"a": 0.0}, 2)
    again.log_metrics({"val/loss": 1.0}, 2)  # a new column
    again.finalize("success")
    found = [(row["step"], row["a"], row["val/loss"]) for row in rows(again)]
    assert found == [("0", "4.0", ""), ("1", "3.0", ""), ("2", "0.0", ""), ("2", "", "1.0")]
    CsvLogger(str(tmp_path / "none"), purge_step=2)
    assert not (tmp_path / "none").exists()


@pytest.fixture
def machine(monkeypatch):
    """Return a function that simulates a machine: `machine(cuda=True, avx512_bf16=True)`."""

    def build(cuda=False, cuda_bf16=False, mps=False, **flags):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)

    return build


@pytest.mark.parametrize(
    ("has", "native"),
    [
        ({"avx2": True, "avx512_bf16": False}, ()),
        ({"avx512_bf16": True}, ("cpu", "auto", "gpu")),  # Lightning takes the CPU, or reports that no GPU is there
        ({"amx_bf16": True}, ("cpu", "auto", "gpu")),
        ({"bf16": True}, ("cpu", "auto", "gpu")),  # ARM
        ({"cuda": True, "cuda_bf16": True}, ("auto", "gpu")),
        ({"cuda": True, "cuda_bf16": False, "avx512_bf16": True}, ("cpu",)),
        ({"mps": True, "bf16": True}, ("cpu", "gpu")),
    ],
)
def test_bf16_is_looked_up_for_the_device_that_is_taken(machine, has, native):
    machine(**has)
    assert tuple(name for name in ("cpu", "auto", "gpu") if has_native_bf16(name)) == native
    assert has_native_bf16("mps") is False


def test_auto_chooses_and_all_else_stays_as_set(machine, monkeypatch):
    machine(avx512_bf16=True)
    assert choose_precision("auto", "cpu") == choose_precision(None, "cpu") == "bf16-mixed"
    assert choose_precision("32-true", "cpu") == "32-true"
    machine()
    assert choose_precision("auto", "cpu") == "32-true"
    assert choose_precision(16, "gpu") == 16
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert choose_precision("auto", "cpu") == "32-true"
