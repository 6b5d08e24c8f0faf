"""What the benchmarks share: the table and the last line, the machine's peak, memory, counted operations."""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from src.models.kernels.linear import has_onednn
from src.utils.errors import UserError
from src.utils.hardware import has_native_bf16

SHARED = Path(__file__).resolve().parents[2] / "shared"
FLICKR = SHARED / "data" / "flickr8k"
PEAK_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (1024, 768, 3072), (1024, 3072, 768))


def print_report(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], result: Mapping) -> None:
    """A table for people, then one line of JSON for machines."""
    print_table(title, header, rows)
    print(json.dumps(result), flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as what stands in them."""
    cells = [list(map(str, header)), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "-" if value is None else str(value)


def chosen(key: str, value: str, known: Sequence[str]) -> list[str]:
    """The names of a comma list, which may be any of `known`; where it is empty, all that this machine can run.

    bf16 is left out, and that said, where the processor has no such products: in software they take a hundred
    times as long.

    Raises:
        UserError: one is not known.
    """
    names = [name for name in value.split(",") if name]
    for name in names:
        if name not in known:
            raise UserError(f"{key}={name}; expected some of {', '.join(known)}; mend the argument")
    able = [name for name in known if "bf16" not in name or has_native_bf16("cpu")]
    if not names and len(able) < len(known):
        print("this processor has no bf16 products: measuring fp32 alone", file=sys.stderr)
    return names or able


def machine_peak(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Most operations per second that any way of multiplying two matrices reaches here, in GFLOP/s.

    Square and layer-shaped products, through torch and through oneDNN with the weight laid out beforehand;
    the best of all repetitions within `seconds`.
    """
    ways = [way for shape in PEAK_SHAPES for way in _products(*shape, dtype)]
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for operations, multiply in ways:
            start = time.perf_counter()
            multiply()
            best = max(best, operations / (time.perf_counter() - start))
    return best / 1e9


def _products(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Iterator[tuple[int, Callable]]:
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    operations = 2 * rows * inner * columns
    turned = right.t().contiguous()
    yield operations, lambda: left @ turned
    if has_onednn(dtype):
        blocked = torch.ops.mkldnn._reorder_linear_weight(right)
        yield operations, lambda: torch.ops.mkldnn._linear_pointwise(left, blocked, None, "none", [], "")


def count_operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of all matrix products, attention included, of one call."""

    def linear(x: torch.Size, weight: Any, *rest: Any, out_shape: torch.Size, **settings: Any) -> int:
        return 2 * x.numel() * out_shape[-1]

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *rest: Any, **settings: Any) -> int:
        return 4 * q.numel() * k[-2]

    def attention_backward(
        grad: torch.Size, q: torch.Size, k: torch.Size, *rest: Any, **settings: Any
    ) -> int:
        return 10 * q.numel() * k[-2]  # scores again, then four products

    aten = torch.ops.aten
    formulas = {
        torch.ops.mkldnn._linear_pointwise: linear,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    return counter.get_total_flops()


def peak_memory() -> float:
    """Most resident memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def medians(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: statistics.median(values) for name, values in samples.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' messages out of the table."""
    import logging
    import warnings

    for name in ("transformers", "pytorch_lightning", "lightning", "src"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
