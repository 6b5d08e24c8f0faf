"""A training that is killed at random moments, by the command that a person uses for more of them."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")
def test_killed_trainings_end_like_an_uninterrupted_one(root):
    command = [sys.executable, "-m", "tests.faults.kill_and_resume", "--runs", "1", "--kills", "2", "--seed", "4"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["runs"], result["equal"], result["half_written"]) == (1, 1, [])
    assert result["kills"] == {"setup": 1, "checkpoint": 1}
