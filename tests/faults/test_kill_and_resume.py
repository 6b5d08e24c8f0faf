"""A training that is killed at random moments, by the command that a person uses for more of them."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.faults.tiny import same
from tests.faults.whole_files import half_written, leftovers


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")
def test_killed_trainings_end_like_an_uninterrupted_one(root):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill_and_resume", "--runs", "1", "--kills", "2", "--seed", "44"],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["runs"], result["equal"], result["half_written"]) == (1, 1, [])
    assert sum(result["kills"].values()) >= 1


def test_half_files_are_seen(tmp_path):
    (tmp_path / "whole.json").write_text("{}\n")
    (tmp_path / "whole.csv").write_text("a,b\n1,2\n")
    torch.save({"state_dict": {}}, tmp_path / "whole.ckpt")
    assert half_written(tmp_path) == []
    (tmp_path / "cut.json").write_text('{"a":')
    (tmp_path / "cut.csv").write_text("a,b\n1")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:100])
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    assert [fault.split("/")[-1].split(":")[0] for fault in half_written(tmp_path)] == [
        "cut.ckpt",
        "cut.csv",
        "cut.json",
        "cut.safetensors",
    ]
    (tmp_path / ".a.ckpt.1234.tmp").touch()
    assert leftovers(tmp_path) == [".a.ckpt.1234.tmp"]


def test_a_bit_makes_two_ends_unlike():
    end = {"weights": [torch.ones(2), {"step": 3}]}
    assert same(end, {"weights": [torch.ones(2), {"step": 3}]})
    assert not same(end, {"weights": [torch.tensor([1.0, 1.0 + 2**-23]), {"step": 3}]})
    assert not same(end, {"weights": [torch.ones(2), {"step": 4}]})
    assert not same(end, {"weights": [torch.ones(2, dtype=torch.float64), {"step": 3}]})
    assert not same(end, {})
