"""The packed loss is the loss of separate captions, for every decoder, and trains like it."""

import copy

import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from src.models.kernels.gpt2 import is_plain_gpt2
from src.models.loss import packed_loss
from tests.models.random_captioner import (
    END,
    captioner,
    freeze_all_but,
    packed,
    random_captions,
    random_states,
    separate_nll,
)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "bart"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_captions_have_the_loss_of_separate_ones(kind, attention):
    model, rows, states = captioner(kind), random_captions(), random_states()
    model.set_attn_implementation(attention)
    nll, tokens = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(nll, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    assert tokens == sum(len(caption) + 1 for row in rows for caption in row)
    assert nll.dtype == torch.float32
    assert tokens.dtype == torch.int64


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_states_of_another_width_go_through_the_projection_and_train_it(kind):
    model, rows, states = captioner(kind, width=16), random_captions(), random_states()
    nll, _ = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(nll, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    nll.backward()
    assert model.enc_to_dec_proj.weight.grad.abs().sum() > 0


def test_a_wrapped_module_goes_through_transformers_own_forward():
    model, rows, states = captioner(), random_captions(), random_states()
    expected, _ = packed_loss(model, states, packed(rows))

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) + 1

    model.decoder.transformer.h[1].mlp.c_fc = Wrapped(model.decoder.transformer.h[1].mlp.c_fc)
    assert not is_plain_gpt2(model.decoder)
    found, _ = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(found, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    assert not torch.isclose(found, expected)


def test_bf16_is_within_a_hundredth():
    model, rows, states = captioner(), random_captions(), random_states()
    freeze_all_but(model, 1)
    exact, _ = packed_loss(model, states, packed(rows))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = packed_loss(model, states, packed(rows))
    assert rough.dtype == torch.float32
    assert abs(rough - exact) < 0.01 * exact
    rough.backward()
    weight = model.decoder.transformer.h[2].mlp.c_fc.weight
    (expected,) = torch.autograd.grad(exact, weight)
    assert weight.grad.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(weight.grad.flatten(), expected.flatten(), 0) > 0.99


class _PlainTrainer(Seq2SeqTrainer):
    """Transformers' trainer with a loss that no release shifts twice."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        states = inputs.pop("states")
        logits = model(encoder_outputs=(states,), **inputs).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_twenty_steps_give_the_losses_of_transformers_trainer(tmp_path):
    model = captioner()
    twin = copy.deepcopy(model)
    batches = [(random_captions(seed=seed), random_states(seed=seed)) for seed in range(20)]

    optimizer = torch.optim.AdamW(freeze_all_but(model, 1), lr=1e-3, weight_decay=0.0)
    ours = []
    for rows, states in batches:
        nll, tokens = packed_loss(model, states, packed(rows))
        (nll / tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        ours.append((nll / tokens).item())

    freeze_all_but(twin, 1)
    theirs = []
    settings = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), max_steps=20, per_device_train_batch_size=1, learning_rate=1e-3,
        report_to=[], lr_scheduler_type="constant", max_grad_norm=1e9, logging_steps=1,
        remove_unused_columns=False,
        use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = _PlainTrainer(
        twin, settings, train_dataset=_InOrder(batches), data_collator=lambda items: _padded(*items[0])
    )
    trainer._get_train_sampler = lambda *_: None
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(theirs) == 20
    assert ours[0] - ours[-1] > 0.1
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=1e-4)


class _InOrder(torch.utils.data.Dataset):
    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]


def _padded(rows, states):
    """One row per caption, padded, the states of an image repeated for each of its captions."""
    captions = [caption for row in rows for caption in row]
    longest = max(map(len, captions)) + 1
    pad = [longest - len(caption) - 1 for caption in captions]
    return {
        "decoder_input_ids": torch.tensor(
            [[END, *c] + [END] * n for c, n in zip(captions, pad, strict=True)]
        ),
        "labels": torch.tensor([[*c, END] + [-100] * n for c, n in zip(captions, pad, strict=True)]),
        "states": states.repeat_interleave(len(rows[0]), 0),
    }
