"""Math attention gives the values and gradients of torch's fused attention."""

from unittest.mock import patch

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import ViTConfig, ViTModel

from src.datamodule import collate
from src.models.kernels.attention import (
    cross_attention,
    self_attention,
    softmax_backward,
    use_math_attention,
)
from src.models.loss import packing_mask
from tests.models.random_captioner import packed

HEADS, WIDTH = 2, 8
CAPTIONS = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 1, 1, 1, 1, 2]])


def test_mask_by_hand():
    mask = packing_mask(torch.tensor([[0, 0, 1, -1]]))
    assert mask.shape == (1, 1, 4, 4)
    assert mask.dtype == torch.bool
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def layout_of(index):
    """The layout with a row for each token; index: i64 (R,T), -1 on padding, its captions numbered from 0."""
    rows = [[[2] * (int((row == k).sum()) - 1) for k in range(int(row.max()) + 1)] for row in index]
    with patch.object(collate, "ROW_MULTIPLE", 1):
        return packed(rows, multiple=1).tokens


def heads(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def with_gradients(result, inputs):
    """The result and its gradients under one fixed weighting."""
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return result, *torch.autograd.grad(result, inputs, weights.to(result.dtype))


def assert_near(found, expected, dtype):
    tolerance = {"atol": 0.03, "rtol": 0.03} if dtype == torch.bfloat16 else {}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, **tolerance)


def padded(flat, index):
    """(N,D) -> (B,T,D) by plain indexing."""
    grid = torch.zeros(*index.shape, flat.shape[1])
    return grid.index_put((index >= 0).nonzero(as_tuple=True), flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("index", [CAPTIONS, CAPTIONS[1:]])
def test_self_attention_is_torchs(index, dtype):
    """bf16 goes through our products, fp32 through torch's attention; the second grid has no padding."""
    qkv = torch.randn(int((index >= 0).sum()), 3 * WIDTH, requires_grad=True)
    found = self_attention(qkv.to(dtype), layout_of(index), HEADS, 0.3)
    q, k, v = (heads(x) for x in padded(qkv, index).chunk(3, -1))
    expected = scaled_dot_product_attention(q, k, v, packing_mask(index), scale=0.3)
    expected = expected.transpose(1, 2).flatten(2)[index >= 0]
    assert_near(with_gradients(found, qkv), with_gradients(expected, qkv), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("index", [CAPTIONS, CAPTIONS[1:]])
def test_cross_attention_is_torchs(index, dtype):
    q = torch.randn(int((index >= 0).sum()), WIDTH, requires_grad=True)
    kv = torch.randn(len(index), 5, 2 * WIDTH, requires_grad=True)
    found = cross_attention(q.to(dtype), kv.to(dtype), layout_of(index), HEADS, 0.3)
    k, v = (heads(x) for x in kv.chunk(2, -1))
    expected = scaled_dot_product_attention(heads(padded(q, index)), k, v, scale=0.3)
    expected = expected.transpose(1, 2).flatten(2)[index >= 0]
    assert_near(with_gradients(found, (q, kv)), with_gradients(expected, (q, kv)), dtype)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_dropped_weights_keep_the_mean_and_their_gradient(kind):
    """Attention is linear in the values: with the same random numbers, its gradient must give the output back."""
    layout = layout_of(CAPTIONS)
    q, kv = torch.randn(11, WIDTH), torch.randn(2, 5, 2 * WIDTH, requires_grad=True)
    qkv = torch.randn(11, 3 * WIDTH, requires_grad=True)

    def attend(rate):
        if kind == "self":
            return self_attention(qkv, layout, HEADS, 0.3, rate), qkv
        return cross_attention(q, kv, layout, HEADS, 0.3, rate), kv

    exact, _ = attend(0.0)
    samples = torch.stack([attend(0.4)[0] for _ in range(3000)])
    assert samples.std(0).max() > 0.1
    torch.testing.assert_close(samples.mean(0), exact, atol=0.1, rtol=0)

    dropped, source = attend(0.4)
    weighting = torch.randn_like(dropped)
    (grad,) = torch.autograd.grad(dropped, source, weighting)
    values = slice(-WIDTH, None)
    torch.testing.assert_close((grad * source)[..., values].sum(), (dropped * weighting).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoders_attend_through_math_attention_with_the_same_numbers(dtype):
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 8}
    config = ViTConfig(hidden_size=16, patch_size=4, **shape)
    torch.manual_seed(0)
    encoder = ViTModel(config, add_pooling_layer=False)
    pixels = torch.randn(2, 3, 8, 8)
    weight = encoder.layers[0].attention.k_proj.weight

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            states = encoder(pixels).last_hidden_state
        return states, *torch.autograd.grad(states.square().sum(), weight)

    before = run()
    use_math_attention(encoder)
    assert encoder.config._attn_implementation == "math_attention"
    assert_near(run(), before, dtype)
    assert "math_attention" not in encoder.config.to_json_string()  # nothing that a saved folder would need


def test_the_softmax_gradient_needs_no_private_operator(monkeypatch):
    grad, weights = torch.randn(2, 3, 4), torch.randn(2, 3, 4).softmax(-1)
    fused = softmax_backward(grad, weights)
    monkeypatch.delattr(torch, "_softmax_backward_data")
    torch.testing.assert_close(softmax_backward(grad, weights), fused)
