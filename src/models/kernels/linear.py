"""Matrix products of a training step on a CPU: frozen weights prepacked for oneDNN, gradients only where needed.

N rows, I features in, O features out.
"""

import ctypes
import mmap
import sys
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.datamodule.collate import ROW_MULTIPLE

WIDE = 16_384  # output features from which on a layer is as wide as a vocabulary
CHUNK = 256  # tokens whose logits exist at a time: 51 MB of fp32 for GPT-2's vocabulary
GPU_CHUNK = 4096  # 0.8 GB
MALLOC_SETTINGS = {-4: 0, -1: 2**31 - 1, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX of malloc.h
MADV_PAGEOUT = 21  # of Linux's mman.h


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N,I) times weight (O,I) transposed, plus bias (O); through oneDNN where that is faster than MKL."""
    faster = x.device.type == "cpu" and (_prefers_onednn(x.dtype) or len(weight) >= WIDE)
    product = _linear if faster and has_onednn(x.dtype) else nn.functional.linear
    return product(x, weight, bias)


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this torch and processor have oneDNN's private operators in a precision, found by calling them."""
    try:
        _linear(torch.zeros(1, 16, dtype=dtype), _blocked(torch.zeros(16, 16, dtype=dtype)))
    except (AttributeError, RuntimeError, TypeError):  # another torch, no oneDNN, or bf16 without AVX-512
        return False
    return True


@cache
def _prefers_onednn(dtype: torch.dtype) -> bool:
    return dtype != torch.float32 or "AVX512" in torch.backends.cpu.get_cpu_capability()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _blocked(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


class PackedWeight(NamedTuple):
    """A weight (O,I) in the precision of products, and its transpose for the gradient."""

    forward: Tensor
    backward: Tensor


# Not an attribute of the module: a copied or pickled model would take the packed copies along.
_packed: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], PackedWeight]] = WeakKeyDictionary()


def prepack(module: nn.Module, weight: Tensor, dtype: torch.dtype) -> PackedWeight:
    """Pack a frozen module's weight (O,I) once, and again after it was changed or moved; one that trains each time.

    Fused optimizers write to a weight without raising its version.
    """
    if weight.requires_grad:
        return _pack(weight.detach(), dtype)
    state = (dtype, weight.data_ptr(), weight._version, weight.device)
    if module not in _packed or _packed[module][0] != state:
        with torch.inference_mode(False):  # what validation packs, training may use
            _packed[module] = (state, _pack(weight.detach(), dtype))
        if weight.dtype != dtype:
            page_out(weight)  # the copy is read instead
    return _packed[module][1]


def _pack(weight: Tensor, dtype: torch.dtype) -> PackedWeight:
    forward = weight.to(dtype)
    if weight.device.type == "cpu" and dtype == torch.bfloat16 and has_onednn(dtype):
        return PackedWeight(_blocked(forward.contiguous()), _blocked(forward.t().contiguous()))
    return PackedWeight(forward, forward.t())


def linear(x: Tensor, module: nn.Module, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N,I) -> (N,O) in the precision of x; weight (O,I) and bias (O), the module's, in any precision."""
    bias = None if bias is None else bias.to(x.dtype)
    if not (weight.requires_grad and torch.is_grad_enabled()):
        return _Linear.apply(x, None, prepack(module, weight, x.dtype), bias)
    cast = weight.detach().to(x.dtype)
    return _Linear.apply(x, weight, PackedWeight(cast, cast.t()), bias)


class _Linear(torch.autograd.Function):
    """Gradients of x and bias where needed, and of a weight that is not None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, packed: PackedWeight, bias: Tensor | None) -> Tensor:
        ctx.packed, ctx.dtype = packed, None if weight is None else weight.dtype
        ctx.save_for_backward(None if weight is None else x)
        return onednn_linear(x, packed.forward, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        dx = onednn_linear(grad, ctx.packed.backward) if ctx.needs_input_grad[0] else None
        dweight = None
        if x is not None:
            transposed = not ctx.packed.forward.is_contiguous()  # Conv1D keeps its weight as (I,O)
            dweight = (x.t() @ grad).to(ctx.dtype).t() if transposed else (grad.t() @ x).to(ctx.dtype)
        return dx, dweight, None, grad.sum(0) if ctx.needs_input_grad[3] else None


class OneDNNLinear(nn.Linear):
    """A Linear of transformers' models whose fp32 products go through `onednn_linear` on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        plain = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        return linear(input.flatten(0, -2), self, self.weight, self.bias).unflatten(0, input.shape[:-1])


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Summed cross-entropy in nats, f32 (), of labels i64 (N) under logits (N,V), with the gradient of smoothed labels.

    The value is that of unsmoothed labels, so that losses compare. label_smoothing: probability spread over all V.
    weights: f32 (N), of each label in a sum, of smoothed labels if any; (B,N) gives B sums, without a gradient.
    """
    logits = logits.float()
    if weights is not None:
        losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        return (losses * weights).sum(-1)  # autocast would round the sums of a matrix product
    nll = nn.functional.cross_entropy(logits, labels, reduction="sum")
    if not (label_smoothing and nll.requires_grad):
        return nll
    smoothed = nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
    return nll.detach() + (smoothed - smoothed.detach())


def linear_cross_entropy(
    hidden: Tensor, head: nn.Linear, labels: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """`cross_entropy`, f32 (), of labels i64 (N) under the head's logits of hidden (N,I).

    With a frozen head the gradient is computed in the forward pass, and the logits of all tokens never exist at once.
    torch's function of this name rounds the sum to the precision of hidden: 0.4% in bf16.
    """
    bias = None if head.bias is None else head.bias.to(hidden.dtype)
    if any(weight.requires_grad for weight in head.parameters()):
        logits = nn.functional.linear(hidden, head.weight.to(hidden.dtype), bias)
        return cross_entropy(logits, labels, label_smoothing, weights)
    packed = prepack(head, head.weight, hidden.dtype)
    return _ChunkedCrossEntropy.apply(hidden, packed, bias, labels, label_smoothing, weights)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, packed: PackedWeight, bias: Any, labels: Tensor, smoothing: float, weights: Any
    ) -> Tensor:
        nll = torch.zeros((), device=hidden.device)
        dhidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        size = CHUNK if hidden.device.type == "cpu" else GPU_CHUNK
        for start in range(0, len(hidden), size):
            chunk = slice(start, start + size)
            label = labels[chunk, None]
            padding = -len(label) % ROW_MULTIPLE
            logits = onednn_linear(nn.functional.pad(hidden[chunk], (0, 0, 0, padding)), packed.forward, bias)
            probabilities = torch.softmax(logits, 1, dtype=torch.float32)  # (<=size,V)
            # log(sum(exp(logits))) from the likeliest token, whose probability is never lost to rounding
            log_sum = logits.amax(1, keepdim=True).float() - probabilities.amax(1, keepdim=True).log()
            losses = log_sum[: len(label)] - logits[: len(label)].gather(1, label)
            nll = nll + (losses.sum() if weights is None else (losses[:, 0] * weights[..., chunk]).sum(-1))
            if dhidden is not None:
                probabilities[: len(label)].scatter_add_(1, label, probabilities.new_full(label.shape, smoothing - 1))
                probabilities = probabilities.sub_(smoothing / probabilities.shape[1]) if smoothing else probabilities
                if weights is not None:
                    probabilities[: len(label)].mul_(weights[chunk, None])
                dhidden[chunk] = onednn_linear(probabilities.to(logits.dtype), packed.backward)[: len(label)]
        ctx.save_for_backward(dhidden)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grad, None, None, None, None, None


def tune_malloc() -> bool:
    """Let glibc keep freed memory for the next tensor, which saves a tenth of a step; returns whether it can."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(name, value) == 1 for name, value in MALLOC_SETTINGS.items())


def page_out(tensor: Tensor) -> None:
    """Free the memory of a CPU tensor that is mapped from its file: 0.6 GB of the default model's 4.2 GB."""
    if sys.platform != "linux" or tensor.device.type != "cpu":
        return
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if size > 0:  # a system that does not know the advice refuses it
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), MADV_PAGEOUT)
