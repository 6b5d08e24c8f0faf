"""Choose the precision of matrix products by what the hardware multiplies natively."""

import torch


def choose_precision(precision: str | int | None, accelerator: str) -> str | int:
    """Return bf16-mixed for None or `auto` where the hardware has bf16 matrix products, else 32-true; others as set."""
    if precision is not None and precision != "auto":
        return precision
    return "bf16-mixed" if has_native_bf16(accelerator) else "32-true"


def has_native_bf16(accelerator: str) -> bool:
    """Whether the device that Lightning takes for `accelerator` has bf16 matrix products in hardware."""
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
