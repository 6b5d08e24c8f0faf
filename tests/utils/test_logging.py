"""Logs come from one process, in one line each, and do nothing to a terminal."""

import logging

import pytest

from src.utils.logging import get_logger, rank, visible

HOSTILE = "a\x1b[2J\r\nINFO all is well\x00\u202egpj.exe\u2028"
ESCAPED = r"a\x1b[2J\r\nINFO all is well\x00\u202egpj.exe\u2028"


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"])
def test_other_ranks_are_silent(monkeypatch, caplog, variable):
    log = get_logger("a.test")
    monkeypatch.setenv(variable, "1")
    log.error("from rank 1")
    monkeypatch.setenv(variable, "none")
    log.error("from rank %d", rank())
    assert caplog.messages == ["from rank 0"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, 0),  # torchrun within a job of SLURM
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1", "NODE_RANK": "0"}, 1),  # started by Lightning within one
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, 1),  # by hand on the second of two machines
    ],
)
def test_the_nearest_launcher_decides_the_rank(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_file_names_and_captions_cannot_forge_lines_or_move_the_cursor(caplog):
    log = get_logger("a.test")
    get_logger("a.test").warning("skipped: %s", HOSTILE)
    log.warning(f"in the text itself: {HOSTILE}")
    with caplog.at_level(logging.INFO):
        log.info("%d of %.1f%%", 3, 0.25)
    assert caplog.messages == [f"skipped: {ESCAPED}", f"in the text itself: {ESCAPED}", "3 of 0.2%"]


def test_scripts_and_emoji_are_shown_as_they_are():
    assert visible("👩‍👧 כלב רץ, café") == "👩‍👧 כלב רץ, café"
    assert visible("one\n\ttwo\r", keep="\n\t") == "one\n\ttwo\\r"
