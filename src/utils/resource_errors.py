"""Recognize errors of a lack of memory or disk, and name the settings that help."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.utils.errors import UserError
from src.utils.hardware import has_native_bf16
from src.utils.logging import get_logger

log = get_logger(__name__)
# In the messages of torch on the CPU, on CUDA, on MPS, and inside cuBLAS and cuDNN.
MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def resource_error(error: BaseException, config: DictConfig) -> UserError | None:
    """Return a one-line error with advice where memory or disk ran out, None for any other error."""
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return None
        if isinstance(cause, OSError) and cause.errno in DISK_ERRORS:
            where = f" at {cause.filename}" if cause.filename else ""
            return UserError(
                f"the disk is full{where} ({cause.strerror}); expected room for checkpoints, the feature cache and "
                "logs; free some space, or set paths.log_dir and callbacks.feature_cache.cache_dir to another disk"
            )
        if _is_memory(cause):
            return UserError(_memory_advice(cause, config))
    return None


@contextmanager
def threads_report_full_disk() -> Iterator[None]:
    """Log one line and no traceback for a thread (TensorBoard's writer) that ends on a full disk."""
    before = threading.excepthook

    def report(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError) and failed.exc_value.errno in DISK_ERRORS:
            log.warning("a logger stops writing: the disk is full (%s)", failed.exc_value.strerror)
        else:
            before(failed)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_MESSAGES)


def _memory_advice(error: BaseException, config: DictConfig) -> str:
    """Return settings that need less memory, those that cost least first."""

    def now(key: str) -> Any:
        return OmegaConf.select(config, key)

    size, batches = now("datamodule.batch_size") or 1, now("trainer.accumulate_grad_batches") or 1
    advice = []
    if size > 1:
        half = size // 2
        advice.append(
            f"datamodule.batch_size={half} trainer.accumulate_grad_batches={-(-size * batches // half)} "
            "(the same step with fewer images at a time)"
        )
    if now("datamodule.captions_per_image") != 1:
        advice.append("datamodule.captions_per_image=1")
    if (now("datamodule.max_caption_tokens") or 65) > 64:
        advice.append("datamodule.max_caption_tokens=64")
    if (now("model.num_beams") or 1) > 1:
        advice.append("model.num_beams=1 (captions)")
    in_fp32 = str(now("trainer.precision")) in ("32", "32-true")
    if in_fp32 and has_native_bf16(str(now("trainer.accelerator"))):
        advice.append("trainer.precision=bf16-mixed")
    message = (str(error).strip().splitlines() or ["MemoryError"])[0][:200]
    return (
        f"out of memory at datamodule.batch_size={size} ({message}); expected it to fit; set "
        + ", or ".join(advice or ["a smaller model.checkpoint"])
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
