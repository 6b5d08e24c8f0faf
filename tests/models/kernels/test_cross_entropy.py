"""The chunked cross-entropy is the cross-entropy."""

import pytest
import torch
from torch import nn

from src.models.kernels import cross_entropy as vocabulary_loss
from src.models.kernels.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_nats_and_gradients_over_several_chunks(trains, with_bias, monkeypatch):
    monkeypatch.setattr(vocabulary_loss, "CHUNK", 4)
    head = nn.Linear(8, 50, bias=with_bias).requires_grad_(trains)
    hidden = torch.randn(11, 8, requires_grad=True)
    labels = torch.randint(0, 50, (11,))
    wanted = [hidden, *head.parameters()] if trains else [hidden]
    found = linear_cross_entropy(hidden, head, labels)
    expected = nn.functional.cross_entropy(head(hidden), labels, reduction="sum")
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found / 11, wanted)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected / 11, wanted))


def test_a_hopeless_label_has_finite_nats():
    head = nn.Linear(2, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[500.0, 0], [0, 0], [0, 0]]))
    nats = linear_cross_entropy(torch.ones(1, 2), head, torch.tensor([1]))
    torch.testing.assert_close(nats, torch.tensor(500.0))


def test_without_gradients_none_are_formed():
    head = nn.Linear(8, 50).requires_grad_(False)
    hidden, labels = torch.randn(5, 8), torch.arange(5)
    with torch.inference_mode():
        nats = linear_cross_entropy(hidden, head, labels)
    torch.testing.assert_close(nats, nn.functional.cross_entropy(head(hidden), labels, reduction="sum"))
