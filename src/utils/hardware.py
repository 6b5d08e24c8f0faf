"""What this machine multiplies fast, and how its memory is used again."""

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING

from src.utils.logging import get_logger

if TYPE_CHECKING:
    from torch import Tensor

log = get_logger(__name__)

ACCELERATORS = ("cpu", "gpu", "cuda", "mps", "auto")


def choose_precision(precision: str | int, accelerator: str) -> str | int:
    """`auto` becomes bf16-mixed where the hardware multiplies bf16 natively, else fp32; others stay as set."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_native_bf16(accelerator) else "32-true"


def has_native_bf16(accelerator: str) -> bool:
    """Whether the device that Lightning takes for `accelerator` has bf16 matrix products in hardware."""
    import torch

    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))


def warn_of_software_bf16(precision: str | int, accelerator: str) -> None:
    """Tell when bf16 is asked of a CPU that makes its products in software, up to a hundred times slower."""
    import torch

    other = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not other)
    if on_cpu and str(precision).startswith("bf16") and not has_native_bf16("cpu"):
        log.warning(
            "precision=%s: this processor has no bf16 products; in software they take many times as long as fp32; "
            "precision=auto takes the fastest",
            precision,
        )


M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h


def tune_malloc() -> bool:
    """Let the C library keep what is freed, for the next tensor of that size; whether it can.

    By itself glibc gives every large block back to the system, which has to clear each page anew when the next
    step asks for it: a tenth of a training step. The process holds on to its peak instead, and all threads share one
    heap, so that what one has freed another can take.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: 1}
    return all(mallopt(name, value) == 1 for name, value in wanted.items())


MADV_PAGEOUT = 21  # of Linux's mman.h


def page_out(tensor: "Tensor") -> None:
    """Let the system have the memory of a CPU tensor that is not needed for long; its numbers stay.

    Weights are mapped from their file: those pages are freed at once, and read again if they are used after all.
    """
    if sys.platform != "linux" or tensor.device.type != "cpu":
        return
    page, start = mmap.PAGESIZE, tensor.data_ptr()
    first = -(-start // page) * page
    size = (start + tensor.nbytes) // page * page - first
    if size > 0:  # a system that does not know the advice refuses it
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), MADV_PAGEOUT)
