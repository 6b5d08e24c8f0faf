"""Choose the precision of matrix products that the hardware has."""

from src.utils.logging import get_logger

log = get_logger(__name__)


def choose_precision(precision: str | int | None, accelerator: str) -> str | int:
    """Return bf16-mixed for None or `auto` where the hardware has bf16 matrix products, else fp32; others as set.

    Warns of bf16 on a CPU that would compute it in software, up to a hundred times slower.
    """
    import torch

    if precision in (None, "auto"):
        return "bf16-mixed" if has_native_bf16(accelerator) else "32-true"
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_gpu)
    if on_cpu and str(precision).startswith("bf16") and not has_native_bf16("cpu"):
        log.warning(
            "precision=%s: this processor has no bf16 products and is slow; set precision=auto", precision
        )
    return precision


def has_native_bf16(accelerator: str) -> bool:
    """Whether the device that Lightning takes for `accelerator` has bf16 matrix products in hardware."""
    import torch

    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
