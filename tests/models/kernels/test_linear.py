"""Linear layers with prepacked weights compute what torch does, and follow a weight that changes."""

import pytest
import torch
from torch import nn

from src.models.kernels import linear as kernel
from src.models.kernels.linear import (
    OneDNNLinear,
    has_onednn,
    linear,
    onednn_linear,
    prepack,
    use_onednn_linear,
)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_a_linear_layer(trains, with_bias):
    layer = nn.Linear(6, 5, bias=with_bias).requires_grad_(trains)
    x = torch.randn(7, 6, requires_grad=True)
    inputs = [x, *layer.parameters()] if trains else [x]
    found = linear(x, layer, layer.weight, layer.bias)
    torch.testing.assert_close(found, layer(x))
    weighting = torch.randn_like(found)
    expected = torch.autograd.grad(layer(x), inputs, weighting)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, weighting), expected)


def test_bf16_products_of_fp32_weights():
    layer = nn.Linear(64, 32).requires_grad_(False)
    x = torch.randn(9, 64, dtype=torch.bfloat16, requires_grad=True)
    found = linear(x, layer, layer.weight, layer.bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x.float()), atol=0.03, rtol=0.03)
    (grad,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(grad.float(), layer.weight.sum(0).expand(9, -1), atol=0.03, rtol=0.03)


def test_bf16_on_a_processor_that_onednn_has_no_bf16_for(monkeypatch):
    def refuse(*_):
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(kernel, "_blocked", refuse)
    has_onednn.cache_clear()
    layer = nn.Linear(64, 32).requires_grad_(False)
    x = torch.randn(9, 64, dtype=torch.bfloat16)
    found = linear(x, layer, layer.weight, layer.bias)
    has_onednn.cache_clear()
    torch.testing.assert_close(found.float(), layer(x.float()), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("width", [32, kernel.WIDE])
@pytest.mark.parametrize("preferred", [True, False])
def test_either_library_gives_the_same_product(width, preferred, monkeypatch):
    monkeypatch.setattr(kernel, "_prefers_onednn", lambda _: preferred)
    x, weight, bias = torch.randn(5, 8), torch.randn(width, 8), torch.randn(width)
    torch.testing.assert_close(onednn_linear(x, weight, bias), nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_weight_is_packed_once_and_again_after_a_change(dtype):
    layer = nn.Linear(16, 16, bias=False).requires_grad_(False)
    x = torch.randn(4, 16, dtype=dtype)
    packed = prepack(layer, layer.weight, dtype)
    assert prepack(layer, layer.weight, dtype) is packed
    layer.weight.copy_(torch.eye(16))
    torch.testing.assert_close(linear(x, layer, layer.weight, None), x)


def test_a_weight_that_trains_is_never_kept():
    """Fused optimizers write to a weight without raising its version."""
    layer = nn.Linear(16, 16, bias=False)
    x = torch.randn(4, 16)
    with torch.no_grad():
        linear(x, layer, layer.weight, None)
        layer.weight.data.copy_(torch.eye(16))
        torch.testing.assert_close(linear(x, layer, layer.weight, None), x)


def test_what_inference_mode_packed_is_used_in_training():
    layer = nn.Linear(8, 8).requires_grad_(False)
    with torch.inference_mode():
        linear(torch.randn(2, 8), layer, layer.weight, layer.bias)
    x = torch.randn(2, 8, requires_grad=True)
    linear(x, layer, layer.weight, layer.bias).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, -1))


@pytest.mark.parametrize("trains", [True, False])
def test_a_onednn_linear_equals_the_linear(trains):
    layer = nn.Linear(6, 5).requires_grad_(trains)
    model = nn.Sequential(layer)
    names = list(model.state_dict())
    x = torch.randn(2, 3, 6, requires_grad=True)
    inputs = [x, *layer.parameters()] if trains else [x]
    expected = layer(x)
    weighting = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, inputs, weighting)
    use_onednn_linear(model)
    assert isinstance(model[0], OneDNNLinear)
    assert list(model.state_dict()) == names
    found = model(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, weighting), gradients)
