"""Matrix products of a training step on a CPU: frozen weights prepacked for oneDNN, gradients only where needed.

N rows, I features in, O features out.
"""

from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.models.kernels.memory import page_out

WIDE = 16_384  # output features from which on a layer is as wide as a vocabulary


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N,I) times weight (O,I) transposed, plus bias (O); on a CPU through oneDNN where that is faster.

    torch sends fp32 products to MKL. With AVX-512 oneDNN is 5 to 15% faster; without, MKL is, but for a weight with
    a vocabulary's rows, where it reaches half to three quarters of oneDNN's speed.
    """
    faster = x.device.type == "cpu" and (_prefers_onednn(x.dtype) or len(weight) >= WIDE)
    if faster and has_onednn(x.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have oneDNN's private operators in a precision, found by calling them."""
    try:
        weight = _blocked(torch.zeros(16, 16, dtype=dtype))
        torch.ops.mkldnn._linear_pointwise(torch.zeros(1, 16, dtype=dtype), weight, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):  # another torch, no oneDNN, or bf16 without AVX-512
        return False
    return True


@cache
def _prefers_onednn(dtype: torch.dtype) -> bool:
    return dtype != torch.float32 or "AVX512" in torch.backends.cpu.get_cpu_capability()


def _blocked(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


class PackedWeight(NamedTuple):
    """A weight (O,I) in the precision of matrix products, and its transpose for the gradient.

    On a CPU in bf16 both are copies in oneDNN's blocked layout, which saves the reordering in each call.
    """

    forward: Tensor
    backward: Tensor


# Not an attribute of the module: a copied or pickled model would take the packed copies along.
_packed: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], PackedWeight]] = WeakKeyDictionary()


def prepack(module: nn.Module, weight: Tensor, dtype: torch.dtype) -> PackedWeight:
    """Pack a module's weight (O,I) once, and again after it was written to, moved or needed in another precision.

    A weight that trains is packed in each call: fused optimizers write to it without raising its version.
    """
    if weight.requires_grad:
        return _pack(weight.detach(), dtype)
    state = (dtype, weight.data_ptr(), weight._version, weight.device)
    kept = _packed.get(module)
    if kept is None or kept[0] != state:
        with torch.inference_mode(False):  # what validation packs, training may use
            kept = _packed[module] = (state, _pack(weight.detach(), dtype))
        if weight.dtype != dtype:
            page_out(weight)  # the copy is read instead
    return kept[1]


def _pack(weight: Tensor, dtype: torch.dtype) -> PackedWeight:
    forward = weight.to(dtype)
    if weight.device.type == "cpu" and dtype == torch.bfloat16 and has_onednn(dtype):
        return PackedWeight(_blocked(forward.contiguous()), _blocked(forward.t().contiguous()))
    return PackedWeight(forward, forward.t())


def linear(x: Tensor, module: nn.Module, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N,I) -> (N,O) in the precision of x; weight (O,I) and bias (O), the module's, in any precision."""
    cast_bias = None if bias is None else bias.to(x.dtype)
    if weight.requires_grad and torch.is_grad_enabled():
        return _TrainableLinear.apply(x, weight, cast_bias)
    return _FrozenLinear.apply(x, prepack(module, weight, x.dtype), cast_bias)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: PackedWeight, bias: Tensor | None) -> Tensor:
        ctx.packed = packed
        return onednn_linear(x, packed.forward, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dx = onednn_linear(grad, ctx.packed.backward) if ctx.needs_input_grad[0] else None
        dbias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return dx, None, dbias


class _TrainableLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        cast = weight.to(x.dtype)
        ctx.save_for_backward(x, cast)
        ctx.dtype = weight.dtype
        return onednn_linear(x, cast, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = onednn_linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        transposed = not weight.is_contiguous()  # Conv1D keeps its weight as (I,O)
        dweight = (x.t() @ grad).to(ctx.dtype).t() if transposed else (grad.t() @ x).to(ctx.dtype)
        dbias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias


class OneDNNLinear(nn.Linear):
    """A Linear of transformers' models whose fp32 products go through `onednn_linear` on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        plain = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        flat = linear(input.flatten(0, -2), self, self.weight, self.bias)
        return flat.unflatten(0, input.shape[:-1])


def use_onednn_linear(model: nn.Module) -> None:
    """Turn every Linear of a model into a `OneDNNLinear`; weights and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDNNLinear
