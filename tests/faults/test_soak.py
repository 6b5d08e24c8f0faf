"""What a soak calls flat; the soak itself takes its minutes and is run by hand."""

import os
from pathlib import Path

import pytest

from tests.faults.soak import GROWTH_LIMIT, Sample, judge, look, steps_of
from tests.faults.training import Place


def samples(memory, files):
    return [Sample(float(number), memory(number), files(number)) for number in range(90)]


def test_warm_up_is_not_growth():
    found = judge(samples(lambda n: 1000 * min(n, 25), lambda n: 5 + n % 3))
    assert found["memory_growth"] == 0
    assert (found["open_files_early"], found["open_files_late"], found["open_files_most"]) == (5, 5, 7)


def test_a_leak_is_seen():
    found = judge(samples(lambda n: 100_000 + 100 * n, lambda n: 4 + n // 10))
    assert found["memory_growth"] > GROWTH_LIMIT
    assert found["open_files_late"] > found["open_files_early"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="processes cannot be looked into here")
def test_a_process_is_looked_at_from_outside(tmp_path):
    before = look(os.getpid(), 1.5)
    with (tmp_path / "a").open("w"):
        after = look(os.getpid(), 2.5)
    assert before.memory > 10_000
    assert (before.seconds, after.files) == (1.5, before.files + 1)


def test_steps_are_those_that_the_training_told(tmp_path):
    place = Place(tmp_path)
    place.output.write_text("stopped by SIGTERM after step 164; all is kept\n")
    assert steps_of(place) == 164
    place.output.write_text("")
    assert steps_of(place) == 0
