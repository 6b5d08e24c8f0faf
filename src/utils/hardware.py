"""Choose the precision of matrix products that the hardware has."""


def choose_precision(precision: str | int | None, accelerator: str) -> str | int:
    """Return bf16-mixed for None or `auto` where the hardware has bf16 matrix products, else fp32; others as set."""
    if precision is not None and precision != "auto":
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
