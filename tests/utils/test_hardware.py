"""bf16 where the hardware multiplies it, fp32 elsewhere."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.utils.hardware import (
    choose_precision,
    has_native_bf16,
    page_out,
    tune_malloc,
    warn_of_software_bf16,
)


@pytest.fixture
def machine(monkeypatch):
    """A machine with what is given: `machine(cuda=True, avx512_bf16=True)`."""

    def build(cuda=False, cuda_bf16=False, mps=False, **flags):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)

    return build


@pytest.mark.parametrize(
    ("parts", "native"),
    [
        ({}, ()),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, ()),
        ({"avx512_bf16": True}, ("cpu", "auto", "gpu")),  # Lightning takes the CPU, or tells, where no GPU is
        ({"amx_bf16": True}, ("cpu", "auto", "gpu")),
        ({"bf16": True}, ("cpu", "auto", "gpu")),  # ARM
        ({"cuda": True, "cuda_bf16": True}, ("auto", "gpu", "cuda")),
        ({"cuda": True, "cuda_bf16": False, "avx512_bf16": True}, ("cpu",)),
        ({"mps": True, "bf16": True}, ("cpu", "gpu")),
    ],
)
def test_bf16_is_asked_of_the_device_that_is_taken(machine, parts, native):
    machine(**parts)
    for accelerator in ("cpu", "auto", "gpu"):
        assert has_native_bf16(accelerator) == (accelerator in native), accelerator
    assert has_native_bf16("mps") is False


def test_auto_chooses_and_all_else_stays_as_set(machine):
    machine(avx512_bf16=True)
    assert choose_precision("auto", "cpu") == "bf16-mixed"
    assert choose_precision("32-true", "cpu") == "32-true"
    machine()
    assert choose_precision("auto", "cpu") == "32-true"
    assert choose_precision("bf16-mixed", "cpu") == "bf16-mixed"
    assert choose_precision(16, "gpu") == 16


@pytest.mark.parametrize(
    ("precision", "device", "told"),
    [
        ("bf16-mixed", "cpu", True),
        ("bf16-mixed", "auto", True),
        ("bf16", "cpu", True),
        ("32-true", "cpu", False),
        ("bf16-mixed", "cuda", False),
    ],
)
def test_bf16_in_software_is_told(machine, caplog, precision, device, told):
    machine(avx2=True)
    warn_of_software_bf16(precision, device)
    assert ("this processor has no bf16 products" in caplog.text) == told
    caplog.clear()
    machine(avx512_bf16=True)
    warn_of_software_bf16(precision, device)
    assert caplog.text == ""


def test_a_torch_that_tells_nothing_gets_fp32(machine, monkeypatch):
    machine()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", "cpu") == "32-true"


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_freed_is_used_again_without_the_system(root):
    script = """
import resource, sys
from src.utils.hardware import tune_malloc
if "keep" in sys.argv:
    assert tune_malloc()
bytes(bytearray(2**26))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    bytearray(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script, word], cwd=root))
        for word in ("keep", "no")
    ]
    assert faults[0] < 100 < faults[1]


def test_another_c_library_is_left_alone(monkeypatch):
    def fail(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert tune_malloc() is False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_page_out_takes_no_memory_and_comes_back(tmp_path):
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


def test_an_empty_tensor_is_page_out():
    page_out(torch.empty(0))
