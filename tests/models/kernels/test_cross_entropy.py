"""The chunked cross-entropy is the cross-entropy."""

import pytest
import torch
from torch import nn

from src.models.kernels import cross_entropy as vocabulary_loss
from src.models.kernels.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_sum_and_gradients_over_several_chunks(trains, with_bias, monkeypatch):
    monkeypatch.setattr(vocabulary_loss, "CHUNK", 4)
    head = nn.Linear(8, 50, bias=with_bias).requires_grad_(trains)
    hidden = torch.randn(11, 8, requires_grad=True)
    labels = torch.randint(0, 50, (11,))
    inputs = [hidden, *head.parameters()] if trains else [hidden]
    found = linear_cross_entropy(hidden, head, labels)
    expected = nn.functional.cross_entropy(head(hidden), labels, reduction="sum")
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found / 11, inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected / 11, inputs))


def test_a_label_of_probability_0_has_a_finite_loss():
    head = nn.Linear(2, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[500.0, 0], [0, 0], [0, 0]]))
    nll = linear_cross_entropy(torch.ones(1, 2), head, torch.tensor([1]))
    torch.testing.assert_close(nll, torch.tensor(500.0))
