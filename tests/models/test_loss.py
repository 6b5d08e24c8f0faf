"""The packed loss is the loss of separate captions, for every decoder, and trains like it."""

import math
from types import SimpleNamespace

import pytest
import torch

from src.models import loss
from src.models.loss import TokenMean, packed_loss
from tests.models.random_captioner import (
    captioner,
    freeze_all_but,
    packed,
    random_captions,
    random_states,
    separate_nll,
)


def test_packing_mask_by_hand():
    mask = packed([[[5], []]], multiple=4).tokens.mask  # captions of 2 and 1 tokens, the start included, and padding
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == [[[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]]


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "bart"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_captions_have_the_loss_of_separate_ones(kind, attention):
    model, rows, states = captioner(kind), random_captions(), random_states()
    model.set_attn_implementation(attention)
    nll, tokens = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(nll, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    assert tokens == sum(len(caption) + 1 for row in rows for caption in row)
    assert (nll.dtype, tokens.dtype) == (torch.float32, torch.int64)


def test_bf16_is_within_a_hundredth():
    model, rows, states = captioner(), random_captions(), random_states()
    freeze_all_but(model, 1)
    exact, _ = packed_loss(model, states, packed(rows))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = packed_loss(model, states, packed(rows))
    assert rough.dtype == torch.float32
    assert abs(rough - exact) < 0.01 * exact
    weight = model.decoder.transformer.h[2].mlp.c_fc.weight
    (found,), (expected,) = torch.autograd.grad(rough, weight), torch.autograd.grad(exact, weight)
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.99


def test_label_smoothing_changes_the_gradient_alone_and_alike_with_both_kernels():
    model, rows, states = captioner(), random_captions(), random_states().requires_grad_()
    freeze_all_but(model, 1)
    gradients = {}
    for on_cpu in (False, True):
        for smoothing in (0.0, 0.2):
            nll, _ = packed_loss(model, states, packed(rows), on_cpu, smoothing)
            (gradients[on_cpu, smoothing],) = torch.autograd.grad(nll, states)
            torch.testing.assert_close(nll, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients[True, 0.2], gradients[False, 0.2], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(gradients[True, 0.2], gradients[True, 0.0], rtol=0.01)


@pytest.mark.parametrize(("smoothing", "weighted"), [(0.0, False), (0.2, False), (0.0, True)])
@pytest.mark.parametrize("trained", [1, 3])
def test_a_gpu_has_the_loss_and_gradient_of_all_logits_without_having_them_at_once(
    smoothing, weighted, trained, monkeypatch
):
    model, batch, states = captioner(), packed(random_captions()), random_states().requires_grad_()
    freeze_all_but(model, trained)
    settings = False, smoothing, torch.rand(batch.num_tokens) if weighted else None
    expected, _ = packed_loss(model, states, batch, *settings)
    monkeypatch.setattr(loss, "splits_head", lambda decoder, device: True)
    monkeypatch.setattr("src.models.kernels.linear.CHUNK", 4)
    found, _ = packed_loss(model, states, batch, *settings)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, states), torch.autograd.grad(expected, states))


def test_a_mean_over_tokens_counts_each_token_once():
    mean, alone = TokenMean(), SimpleNamespace(world_size=1)
    assert math.isnan(mean.compute(alone))
    mean.update(torch.tensor(6.0), torch.tensor(2))
    mean.update(torch.tensor(4.0), torch.tensor(8))
    assert mean.compute(alone) == 1.0
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda sums, reduce_op: sums * 2)
    assert mean.sync(SimpleNamespace(world_size=2, strategy=strategy)) == [20.0, 20.0]
    assert mean.sync(alone) == [10.0, 10.0]
