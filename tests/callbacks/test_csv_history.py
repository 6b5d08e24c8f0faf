"""The csv file of logged numbers is whole at any moment and goes on with the run."""

import csv
import errno
import os

import pytest

from src.callbacks import csv_history
from src.callbacks.csv_history import CsvHistory, carry_history


def logger(folder):
    return CsvHistory(str(folder), "csv", "", flush_logs_every_n_steps=1000)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_may_come_later(tmp_path):
    written = logger(tmp_path)
    path = tmp_path / "csv" / "metrics.csv"
    written.save()
    assert not path.exists()
    written.log_metrics({"train/loss_step": 3.0}, 0)
    written.save()
    written.log_metrics({"train/loss_step": 2.0}, 1)
    written.save()
    written.log_metrics({"val/loss": 1.0}, 1)
    written.finalize("success")
    assert [(row["step"], row["train/loss_step"], row["val/loss"]) for row in rows(path)] == [
        ("0", "3.0", ""),
        ("1", "2.0", ""),
        ("1", "", "1.0"),
    ]


@pytest.mark.parametrize("new_column", [True, False])
def test_a_full_disk_keeps_the_file_and_the_rows(tmp_path, monkeypatch, caplog, new_column):
    written = logger(tmp_path)
    path = tmp_path / "csv" / "metrics.csv"
    written.log_metrics({"a": 1.0}, 0)
    written.save()
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if new_column:
        monkeypatch.setattr(csv_history, "atomic_write", full)
    else:
        whole = os.write
        monkeypatch.setattr(os, "write", lambda handle, data: whole(handle, data[:3]))
    written.log_metrics({"b" if new_column else "a": 2.0}, 1)
    written.save()
    assert path.read_bytes() == before
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    written.save()
    assert [row["step"] for row in rows(path)] == ["0", "1"]


def test_an_earlier_runs_rows_come_along_up_to_the_step_of_the_checkpoint(tmp_path):
    earlier = logger(tmp_path / "one")
    for step in range(4):
        earlier.log_metrics({"train/loss_step": 4.0 - step}, step)
    earlier.save()
    with (tmp_path / "one" / "csv" / "metrics.csv").open("a") as file:
        file.write("5")  # cut by a power failure
    carry_history(tmp_path / "one", tmp_path / "two", 3)
    carry_history(tmp_path / "two", tmp_path / "three", 2)
    assert [row["step"] for row in rows(tmp_path / "two" / "csv/earlier/metrics.csv")] == ["0", "1", "2"]
    assert [row["step"] for row in rows(tmp_path / "three" / "csv/earlier/earlier/metrics.csv")] == ["0", "1"]
    carry_history(tmp_path / "nothing", tmp_path / "four", 3)
    assert not (tmp_path / "four").exists()
