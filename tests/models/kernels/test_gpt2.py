"""The packed GPT-2 is transformers' GPT-2, in training and in a step of the search: values, gradients and dropout."""

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from src.models.freezing import choose_trainable
from src.models.kernels.beam_search import decode_step, prefill
from src.models.kernels.gpt2 import is_plain_gpt2
from src.models.loss import packed_loss, packed_output
from tests.models.random_captioner import (
    captioner,
    decoder_config,
    freeze_all_but,
    packed,
    random_captions,
    random_states,
)


def plain_nll(model, states, batch):
    """The same loss through transformers' forward and autograd."""
    logits = packed_output(model.decoder, states, batch)
    return nn.functional.cross_entropy(logits, batch.labels[batch.labels != -100], reduction="sum")


@pytest.mark.parametrize("trained", [0, 1, 2, "cross_attention", "full"])
@pytest.mark.parametrize("trained_encoder", [True, False])
def test_gradients_are_those_of_plain_autograd(trained, trained_encoder):
    model, batch = captioner(), packed(random_captions())
    if isinstance(trained, int):
        freeze_all_but(model, trained)
    else:
        choose_trainable(model, trained, 1)
    weights = [weight for weight in model.decoder.parameters() if weight.requires_grad]
    states = random_states().requires_grad_(trained_encoder)
    inputs = [*weights, *([states] if trained_encoder else [])]
    found, expected = packed_loss(model, states, batch)[0], plain_nll(model, states, batch)
    torch.testing.assert_close(found, expected)
    assert found.requires_grad == bool(inputs)
    if inputs:
        found, expected = torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"activation_function": "relu"},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"n_inner": 20, "layer_norm_epsilon": 0.1},
    ],
)
def test_settings_of_gpt2_take_effect(settings):
    model, batch, states = captioner(**settings), packed(random_captions()), random_states()
    assert is_plain_gpt2(model.decoder)
    torch.testing.assert_close(packed_loss(model, states, batch)[0], plain_nll(model, states, batch))


@pytest.mark.parametrize("kind", ["attn_pdrop", "resid_pdrop", "embd_pdrop"])
def test_dropout_is_active_where_modules_train_and_nowhere_else(kind):
    model, batch, states = captioner(**{kind: 0.3}), packed(random_captions()), random_states()
    freeze_all_but(model, 1)
    torch.manual_seed(0)
    first, second = (packed_loss(model, states, batch)[0] for _ in range(2))
    assert (first == second) == (kind == "embd_pdrop")  # the embeddings are frozen
    model.eval()
    torch.testing.assert_close(packed_loss(model, states, batch)[0], plain_nll(model, states, batch))


@pytest.mark.slow
def test_dropout_has_the_mean_and_spread_of_transformers():
    """Each caption has its own dropout, though equal prefixes are one row up to the first block with dropout."""
    model = captioner(attn_pdrop=0.2, resid_pdrop=0.2, embd_pdrop=0.2)
    batch, states = packed([[[2, 3]] * 4] * 2), random_states(2)
    for train in (model.decoder.transformer.h[2].train, model.decoder.train):
        model.eval()
        train()
        torch.manual_seed(0)
        with torch.no_grad():
            ours = torch.stack([packed_loss(model, states, batch)[0] for _ in range(100)])
            theirs = torch.stack([plain_nll(model, states, batch) for _ in range(100)])
        assert abs(ours.mean() - theirs.mean()) < 4 * theirs.std() / 7
        torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.3, atol=0)


def test_other_decoders_are_not_plain():
    assert is_plain_gpt2(captioner().decoder)
    assert not is_plain_gpt2(captioner("bert").decoder)
    assert not is_plain_gpt2(captioner(reorder_and_upcast_attn=True).decoder)
    assert not is_plain_gpt2(GPT2LMHeadModel(decoder_config("gpt2")))  # no cross-attention
    assert not is_plain_gpt2(type("Mine", (GPT2LMHeadModel,), {})(captioner().decoder.config))


def test_logits_of_copied_beams_are_those_of_their_whole_captions():
    model, states, beams = captioner(), random_states(2), 3
    cache = prefill(model.decoder, states, beams, max_length=6)
    captions = torch.zeros(6, 0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        captions = torch.cat([captions, torch.randint(0, 60, (6, 1), generator=generator)], 1)
        found = decode_step(model.decoder, captions[:, -1], cache)
        rows = states.repeat_interleave(beams, 0)
        expected = model(encoder_outputs=(rows,), decoder_input_ids=captions).logits[:, -1]
        torch.testing.assert_close(found, expected)
        assert cache.get_seq_length() == step + 1
        chosen = torch.randint(0, beams, (2, beams), generator=generator) + torch.tensor([[0], [beams]])
        cache.reorder_cache(chosen.flatten())
        captions = captions[chosen.flatten()]
