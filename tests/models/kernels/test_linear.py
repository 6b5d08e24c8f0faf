"""Linear layers with prepacked weights compute what torch does; the chunked cross-entropy is the cross-entropy."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from src.models.kernels import linear as kernel
from src.models.kernels.linear import (
    OneDNNLinear,
    has_onednn,
    linear,
    linear_cross_entropy,
    onednn_linear,
    page_out,
    prepack,
)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kind", ["function", "module"])
def test_values_and_gradients_are_those_of_a_linear_layer(trains, with_bias, kind):
    layer = nn.Linear(6, 5, bias=with_bias).requires_grad_(trains)
    x = torch.randn(7, 6, requires_grad=True)
    inputs = [x, *layer.parameters()] if trains else [x]
    expected = layer(x)
    weighting = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, inputs, weighting)
    layer.__class__ = OneDNNLinear
    found = layer(x) if kind == "module" else linear(x, layer, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, weighting), gradients)


@pytest.mark.parametrize("available", [True, False])
def test_bf16_products_of_fp32_weights(available, monkeypatch):
    def refuse(*_):
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    if not available:
        monkeypatch.setattr(kernel, "_blocked", refuse)
        has_onednn.cache_clear()
    layer = nn.Linear(64, 32).requires_grad_(False)
    x = torch.randn(9, 64, dtype=torch.bfloat16, requires_grad=True)
    found = linear(x, layer, layer.weight, layer.bias)
    has_onednn.cache_clear()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x.float()), atol=0.03, rtol=0.03)
    (grad,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(grad.float(), layer.weight.sum(0).expand(9, -1), atol=0.03, rtol=0.03)


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
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_and_gradients_over_several_chunks(trains, with_bias, smoothing, monkeypatch):
    """Label smoothing changes the gradient, and not the value; weights change both."""
    monkeypatch.setattr(kernel, "CHUNK", 4)
    head = nn.Linear(8, 50, bias=with_bias).requires_grad_(trains)
    hidden = torch.randn(11, 8, requires_grad=True)
    labels = torch.randint(0, 50, (11,))
    inputs = [hidden, *head.parameters()] if trains else [hidden]
    found = linear_cross_entropy(hidden, head, labels, smoothing)
    torch.testing.assert_close(found, nn.functional.cross_entropy(head(hidden), labels, reduction="sum"))
    expected = nn.functional.cross_entropy(head(hidden), labels, reduction="sum", label_smoothing=smoothing)
    gradients = torch.autograd.grad(found / 11, inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected / 11, inputs))
    weights = torch.rand(11)
    found = linear_cross_entropy(hidden, head, labels, smoothing, weights)
    expected = nn.functional.cross_entropy(head(hidden), labels, reduction="none", label_smoothing=smoothing) @ weights
    if not smoothing:
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))


def test_a_label_of_probability_0_has_a_finite_loss():
    head = nn.Linear(2, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[500.0, 0], [0, 0], [0, 0]]))
    nll = linear_cross_entropy(torch.ones(1, 2), head, torch.tensor([1]))
    torch.testing.assert_close(nll, torch.tensor(500.0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_paged_out_tensor_takes_no_memory_and_keeps_its_values(tmp_path):
    def mapped():
        return int(re.search(r"RssFile:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    count = 2**23  # 32 MB
    torch.arange(count, dtype=torch.float32).numpy().tofile(tmp_path / "weights")
    weights = torch.from_file(str(tmp_path / "weights"), shared=False, size=count)
    weights[0] = 7  # a page that is no longer the file's
    total = weights.sum()
    before = mapped()
    page_out(weights[1:-1])  # begins and ends within a page
    assert mapped() < before - 24
    assert weights[0] == 7
    assert weights.sum() == total
    page_out(torch.empty(0))
