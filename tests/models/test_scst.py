"""The gradient of self-critical training is that of the expected reward, computed by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.models import scst
from src.models.generation import Samples
from src.models.loss import packed_loss
from src.models.scst import SelfCritical, advantages
from tests.models.random_captioner import END, captioner, freeze_all_but, packed, random_states

A, B, C = 7, 8, 9
SAMPLES = [[[A, B, END], [A, C, B]], [[END], [C, END]]]  # the second was cut off before EOS
REWARDS = np.array([[2.0, 0.5], [1.0, 4.0]])


def log_probs(model, states, captions):
    """Of the tokens of each image's captions, by transformers' forward of one caption at a time."""
    found = []
    for state, rows in zip(states, captions, strict=True):
        for row in rows:
            ids = torch.tensor([[END, *row[:-1]]])
            logits = model(encoder_outputs=(state[None],), decoder_input_ids=ids).logits[0]
            found.append(logits.log_softmax(-1)[range(len(row)), row].sum())
    return torch.stack(found)


@pytest.fixture
def given(monkeypatch):
    """A captioner, encoder states and the samples above in the place of random ones."""
    model, states = captioner(), random_states(2)
    weights = freeze_all_but(model, 1)
    rows = [row + [END] * (3 - len(row)) for image in SAMPLES for row in image]
    samples = Samples(torch.tensor(rows).view(2, 2, 3), torch.tensor([[3, 3], [1, 2]]))
    monkeypatch.setattr(scst, "sample_captions", lambda *_, **__: samples)
    processor = SimpleNamespace(start_id=END, eos_id=END, pad_id=END, decode=lambda row: " ".join(map(str, row)))
    network = SimpleNamespace(
        network=model, processor=processor, generation={"max_length": 4},
        uses_cpu_kernels=lambda _: True, encode=lambda _: states,
    )  # fmt: skip
    return model, weights, states, network


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_gradient_is_that_of_a_direct_computation(given, share, on_cpu):
    model, weights, states, network = given
    network.loss = lambda states, batch, weights=None: packed_loss(model, states, batch, on_cpu, weights=weights)
    batch = replace(packed([[[A, A]], [[B]]]), image_ids=["x", "y"])
    asked = []
    objective = SelfCritical(lambda *request: asked.append(request) or REWARDS, 2, share)
    loss, count, reward = objective.loss(network, batch)
    assert (count, reward) == (9, 1.875)
    assert asked == [(["x", "y"], ["7 8 59", "7 9 8", "59", "9 59"], [True, False, True, True])]

    chosen = torch.tensor([1.5, -1.5, -3.0, 3.0])  # each reward less that of the other sample
    references = log_probs(model, states, [[[A, A, END]], [[B, END]]]).sum() * 9 / 5
    direct = -(1 - share) * (chosen * log_probs(model, states, SAMPLES)).sum() - share * references
    torch.testing.assert_close(loss, direct)
    found, expected = torch.autograd.grad(loss, weights), torch.autograd.grad(direct, weights)
    torch.testing.assert_close(found, expected)


def test_the_baseline_is_the_mean_of_the_others():
    found = advantages(np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]]))
    assert found.tolist() == [[1 - 4.0, 2 - 3.5, 6 - 1.5], [0, 0, 0]]
