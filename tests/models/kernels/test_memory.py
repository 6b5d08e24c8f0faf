"""Freed memory is kept, weights that are not read are paged out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.models.kernels.memory import page_out


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_reused_without_the_system(root):
    script = """
import resource, sys
from src.models.kernels.memory import tune_malloc
if "keep" in sys.argv:
    assert tune_malloc()
bytes(bytearray(2**26))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    bytearray(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script, mode], cwd=root))
        for mode in ("keep", "no")
    ]
    assert faults[0] < 100 < faults[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_paged_out_tensor_takes_no_memory_and_keeps_its_values(tmp_path):
    def mapped():
        return int(re.search(r"RssFile:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    count = 2**23  # 32 MB
    torch.arange(count, dtype=torch.float32).numpy().tofile(tmp_path / "weights")
    weights = torch.from_file(str(tmp_path / "weights"), shared=False, size=count)
    weights[0] = 7  # a page that is no longer the file's
    total = weights.sum()
    before = mapped()
    page_out(weights[1:-1])  # begins and ends within a page
    assert mapped() < before - 24
    assert weights[0] == 7
    assert weights.sum() == total
    page_out(torch.empty(0))
