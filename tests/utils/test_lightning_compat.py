"""Each workaround of Lightning is still needed: without it the public behavior differs."""

import csv
import errno
import os
import pickle
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from src.utils import lightning_compat
from src.utils.errors import Stopped
from src.utils.lightning_compat import CsvLogger, all_processes_end, leave_signals_alone


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
        with (
            pytest.raises(type(error)),
            all_processes_end(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))),
        ):
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
    again = CsvLogger(str(tmp_path))
    again.resume_at(2)
    again.log_metrics({"a": 0.0}, 2)
    again.log_metrics({"val/loss": 1.0}, 2)  # a new column
    again.finalize("success")
    found = [(row["step"], row["a"], row["val/loss"]) for row in rows(again)]
    assert found == [("0", "4.0", ""), ("1", "3.0", ""), ("2", "0.0", ""), ("2", "", "1.0")]
    CsvLogger(str(tmp_path / "none")).resume_at(2)
    assert not (tmp_path / "none").exists()


def test_the_csv_is_written_from_time_to_time(tmp_path, monkeypatch):
    logger = CsvLogger(str(tmp_path))
    for step, seconds in enumerate((0.0, 99.0)):
        monkeypatch.setattr(lightning_compat, "SAVE_SECONDS", seconds)
        logger.log_metrics({"a": 1.0}, step)
        logger.save()
    assert len(rows(logger)) == 1
    logger.write()
    assert len(rows(logger)) == 2


def test_a_full_disk_keeps_the_file_and_the_rows(tmp_path, monkeypatch, caplog):
    logger = logged(tmp_path, 0)
    before = logger.path.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(lightning_compat, "atomic_write", full)
        logger.log_metrics({"b": 2.0}, 1)
        logger.write()
    assert logger.path.read_bytes() == before
    assert "No space left on device" in caplog.text
    logger.write()
    assert len(rows(logger)) == 2
