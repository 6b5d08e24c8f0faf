"""csv/metrics.csv is complete at any moment and continues when a run resumes."""

import errno
import os

import pytest

from src.utils import csv_logger
from src.utils.csv_logger import CsvLogger, read_rows


def logged(folder, *steps, name="a"):
    """A logger with a row for each step, saved."""
    logger = CsvLogger(str(folder))
    for step in steps:
        logger.log_metrics({name: 4.0 - step}, step)
    logger.save()
    return logger


def steps(logger):
    return [int(row["step"]) for row in read_rows(logger.path)[1]]


def test_new_columns_may_appear_later(tmp_path):
    logger = logged(tmp_path)
    assert not logger.path.exists()
    logger = logged(tmp_path, 0, 1)
    logger.log_metrics({"val/loss": 1.0}, 1)
    logger.finalize("success")
    rows = [(row["step"], row["a"], row["val/loss"]) for row in read_rows(logger.path)[1]]
    assert rows == [("0", "4.0", ""), ("1", "3.0", ""), ("1", "", "1.0")]


def test_a_resumed_run_appends_and_logs_the_repeated_steps_once(tmp_path):
    logger = logged(tmp_path, 0, 1, 2, 3)
    with logger.path.open("a") as file:
        file.write("5")  # cut by a power failure
    again = CsvLogger(str(tmp_path))
    again.resume_at(2)
    assert steps(again) == [0, 1]
    again.log_metrics({"a": 0.0}, 2)
    again.save()
    assert steps(again) == [0, 1, 2]
    CsvLogger(str(tmp_path / "none")).resume_at(2)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("new_column", [True, False])
def test_a_full_disk_keeps_the_file_and_the_rows(tmp_path, monkeypatch, caplog, new_column):
    logger = logged(tmp_path, 0)
    before = logger.path.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if new_column:
        monkeypatch.setattr(csv_logger, "atomic_write", full)
    else:
        write = os.write
        monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    logger.log_metrics({"b" if new_column else "a": 2.0}, 1)
    logger.save()
    assert logger.path.read_bytes() == before
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    logger.save()
    assert steps(logger) == [0, 1]
