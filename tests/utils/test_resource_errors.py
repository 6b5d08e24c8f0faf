"""A resource_error is told with the settings that help; other errors are left as they are."""

import errno
import threading

import pytest
import torch
from omegaconf import OmegaConf

from src.utils import resource_errors
from src.utils.errors import UserError
from src.utils.resource_errors import resource_error, threads_report_full_disk

CONFIG = OmegaConf.create(
    {
        "datamodule": {"batch_size": 16, "captions_per_image": None, "max_caption_tokens": 256},
        "model": {"num_beams": 4},
        "trainer": {"precision": "32-true", "accumulate_grad_batches": 1},
    }
)
SMALL = OmegaConf.create(
    {
        "datamodule": {"batch_size": 1, "captions_per_image": 1, "max_caption_tokens": 32},
        "model": {"num_beams": 1},
        "trainer": {"precision": "bf16-mixed"},
    }
)


def really_too_much():
    torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
    ],
)
def test_memory_names_settings_with_their_values(error, monkeypatch):
    monkeypatch.setattr(resource_errors, "has_native_bf16", lambda _: True)
    text = str(resource_error(error, CONFIG))
    assert text.startswith("out of memory at datamodule.batch_size=16 (")
    assert "datamodule.batch_size=8 trainer.accumulate_grad_batches=2" in text
    for setting in ("captions_per_image=1", "max_caption_tokens=64", "num_beams=1", "precision=bf16-mixed"):
        assert setting in text
    assert "\n" not in text


def test_bf16_is_not_advised_where_it_is_slow(monkeypatch):
    monkeypatch.setattr(resource_errors, "has_native_bf16", lambda _: False)
    assert "bf16" not in str(resource_error(MemoryError(), CONFIG))


def test_what_torch_raises_here_is_known():
    with pytest.raises(RuntimeError) as caught:
        really_too_much()
    assert "out of memory at" in str(resource_error(caught.value, CONFIG))


def test_what_is_as_small_as_it_gets_is_not_advised():
    text = str(resource_error(MemoryError(), SMALL))
    assert text.endswith("set a smaller model.checkpoint")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_its_place(number):
    cause = OSError(number, "No room", "/data/x")
    error = RuntimeError("tensorboard's thread died")
    error.__cause__ = cause
    text = str(resource_error(error, CONFIG))
    assert "the disk is full at /data/x (No room)" in text
    assert "paths.log_dir" in text


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory"), OSError(errno.ENOENT, "no such file"), RuntimeError("x"), UserError("y")],
)
def test_other_errors_are_not_resource_errors(error):
    assert resource_error(error, CONFIG) is None


def fail_in_a_thread(error):
    def fail():
        raise error

    with threads_report_full_disk():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()


def test_a_thread_without_disk_is_told_in_a_line(monkeypatch, caplog):
    others = []
    monkeypatch.setattr(threading, "excepthook", others.append)
    fail_in_a_thread(OSError(errno.ENOSPC, "No space left on device"))
    assert caplog.messages == ["a logger stops writing: the disk is full (No space left on device)"]
    assert others == []
    fail_in_a_thread(OSError(errno.ENOENT, "no such file"))
    fail_in_a_thread(ValueError("a fault"))
    assert [fault.exc_type for fault in others] == [FileNotFoundError, ValueError]
    assert threading.excepthook == others.append
