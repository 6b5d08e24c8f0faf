"""bf16 where the hardware multiplies it, fp32 elsewhere."""

import pytest
import torch

from src.utils.hardware import choose_precision, has_native_bf16


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
        (
            {"avx512_bf16": True},
            ("cpu", "auto", "gpu"),
        ),  # Lightning takes the CPU, or reports that no GPU is there
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
