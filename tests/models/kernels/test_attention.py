"""Math attention gives the values and gradients of torch's fused attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import ViTConfig, ViTModel

from src.models.kernels.attention import attend, use_math_attention


def with_gradients(result, inputs):
    """The result and its gradients under one fixed weighting."""
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return result, *torch.autograd.grad(result, inputs, weights.to(result.dtype))


def assert_near(found, expected, dtype):
    tolerance = {"atol": 0.03, "rtol": 0.03} if dtype == torch.bfloat16 else {}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, **tolerance)


def random_inputs(queries=6, keys=6):
    torch.manual_seed(0)
    return [torch.randn(2, 3, length, 4, requires_grad=True) for length in (queries, keys, keys)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_torchs(dtype, masked):
    """bf16 goes through our products, fp32 through torch's attention."""
    inputs = random_inputs(keys=6 if masked else 5)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril() if masked else None
    found = attend(*(x.to(dtype) for x in inputs), mask, 0.3, 0.0)
    expected = scaled_dot_product_attention(*inputs, mask, scale=0.3)
    assert_near(with_gradients(found, inputs), with_gradients(expected, inputs), dtype)


def test_dropped_weights_keep_the_mean_and_their_gradient():
    """Attention is linear in the values: with the same random numbers, its gradient must give the output back."""
    q, k, v = random_inputs()
    samples = torch.stack([attend(q, k, v, None, 0.3, 0.4).detach() for _ in range(1000)])
    assert samples.std(0).max() > 0.1
    torch.testing.assert_close(samples.mean(0), attend(q, k, v, None, 0.3, 0.0), atol=0.15, rtol=0)
    dropped = attend(q, k, v, None, 0.3, 0.4)
    weighting = torch.randn_like(dropped)
    (grad,) = torch.autograd.grad(dropped, v, weighting)
    torch.testing.assert_close((grad * v).sum(), (dropped * weighting).sum())


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

    before, names = run(), list(encoder.state_dict())
    use_math_attention(encoder)
    assert encoder.config._attn_implementation == "math_attention"
    assert_near(run(), before, dtype)
    assert "math_attention" not in encoder.config.to_json_string()  # nothing that a saved folder would need
    assert list(encoder.state_dict()) == names
