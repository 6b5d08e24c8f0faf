"""Matrix products of a training step: frozen weights kept ready, gradients only where they are wanted.

N rows, I features in, O features out.
"""

from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.utils.hardware import page_out

WIDE = 16_384  # output features from which on a layer is as wide as a vocabulary


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N,I) times weight (O,I) transposed, plus bias (O); on a CPU through oneDNN where that is faster.

    torch sends fp32 products to MKL. With AVX-512 oneDNN is 5 to 15% faster; without, MKL is, but for a weight with
    a vocabulary's rows, where it reaches half to three quarters of its speed.
    """
    wanted = x.device.type == "cpu" and (_prefers_onednn(x.dtype) or len(weight) >= WIDE)
    if wanted and onednn_multiplies(x.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


@cache
def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products of this precision for this processor, found by making one."""
    try:
        weight = _blocked(torch.zeros(16, 16, dtype=dtype))
        torch.ops.mkldnn._linear_pointwise(torch.zeros(1, 16, dtype=dtype), weight, None, "none", [], "")
    except (AttributeError, RuntimeError):  # torch without oneDNN; bf16 without AVX-512
        return False
    return True


@cache
def _prefers_onednn(dtype: torch.dtype) -> bool:
    return dtype != torch.float32 or "AVX512" in torch.backends.cpu.get_cpu_capability()


class PackedWeight:
    """A weight that does not change, in the precision of the products and laid out for both directions.

    forward: the weight as `product` wants it for x -> y. backward: the same for the gradient of y -> of x.
    On a CPU, bf16 copies are held in oneDNN's blocked layout, which saves the reordering in each call.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        """weight: (O,I)."""
        self.forward, self.backward = weight, weight.t()
        if weight.dtype != dtype:
            self.forward = weight.to(dtype)
            self.backward = self.forward.t()
        if weight.device.type == "cpu" and dtype == torch.bfloat16 and onednn_multiplies(dtype):
            self.backward = _blocked(self.backward.contiguous())
            self.forward = _blocked(self.forward.contiguous())


def _blocked(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


class _Frozen(dict[torch.dtype, tuple[tuple[Any, ...], PackedWeight]]):
    """What is kept for one module."""


_kept: WeakKeyDictionary[nn.Module, _Frozen] = WeakKeyDictionary()


def prepack(module: nn.Module, weight: Tensor, dtype: torch.dtype) -> PackedWeight:
    """The module's weight (O,I) made ready once; made anew when the weight was written to or moved.

    A weight that trains is made ready anew in each call: fused optimizers write to it without a sign.
    """
    if weight.requires_grad:
        return PackedWeight(weight.detach(), dtype)
    state = (weight.data_ptr(), weight._version, weight.device)
    kept = _kept.setdefault(module, _Frozen())
    found = kept.get(dtype)
    if found is None or found[0] != state:
        with torch.inference_mode(False):  # what validation prepares, training may use
            found = kept[dtype] = (state, PackedWeight(weight.detach(), dtype))
        if weight.dtype != dtype:
            page_out(weight)  # the copy serves
    return found[1]


def linear(x: Tensor, module: nn.Module, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N,I) -> (N,O) in the precision of x; weight (O,I) and bias (O), the module's, in any precision."""
    bias_now = None if bias is None else bias.to(x.dtype)
    if weight.requires_grad and torch.is_grad_enabled():
        return _TrainableLinear.apply(x, weight, bias_now)
    ready = prepack(module, weight, x.dtype)
    return _FrozenLinear.apply(x, ready, bias_now)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ready: PackedWeight, bias: Tensor | None) -> Tensor:
        ctx.ready = ready
        return product(x, ready.forward, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dx = product(grad, ctx.ready.backward) if ctx.needs_input_grad[0] else None
        dbias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return dx, None, dbias


class _TrainableLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        now = weight.to(x.dtype)
        ctx.save_for_backward(x, now)
        ctx.dtype = weight.dtype
        return product(x, now, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        dweight = None
        if ctx.needs_input_grad[1] and weight.is_contiguous():
            dweight = (grad.t() @ x).to(ctx.dtype)
        elif ctx.needs_input_grad[1]:  # Conv1D keeps its weight as (I,O)
            dweight = (x.t() @ grad).to(ctx.dtype).t()
        dbias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias


class OneDNNLinear(nn.Linear):
    """A Linear of transformers' models whose fp32 products go through `product` on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        plain = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        flat = linear(input.flatten(0, -2), self, self.weight, self.bias)
        return flat.unflatten(0, input.shape[:-1])


def use_product(model: nn.Module) -> None:
    """Turn every Linear of a model into a `OneDNNLinear`; its weights and their names stay."""
    for part in model.modules():
        if type(part) is nn.Linear:
            part.__class__ = OneDNNLinear
