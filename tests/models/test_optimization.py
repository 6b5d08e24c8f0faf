"""Which weights decay, and how the rate rises and falls."""

import pytest
import torch
from torch import nn

from src.models.optimization import cosine_with_warmup, linear_with_warmup, parameter_groups


def test_matrices_decay_biases_and_norms_do_not_and_frozen_weights_are_absent():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    decaying, others = parameter_groups(model.parameters())
    assert decaying == {"params": [model[0].weight]}
    assert others == {"params": [model[0].bias, model[1].weight, model[1].bias], "weight_decay": 0.0}
    assert len(parameter_groups([nn.Parameter(torch.zeros(2))])) == 1


def rates(make, steps=20, **settings):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make(optimizer, steps, **settings)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_in_the_warmup_and_falls_linearly_or_in_a_cosine():
    expected = [0, 0.5, 1, 1.5, *[2 * (20 - step) / 16 for step in range(4, 21)]]
    assert rates(linear_with_warmup, warmup=0.2) == pytest.approx(expected)
    assert rates(linear_with_warmup, warmup=0.0)[0] == 2
    found = rates(cosine_with_warmup, warmup=0.2)
    assert found[:5] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert found[12] == pytest.approx(1)
    assert found[20] == pytest.approx(0)
    assert found[4] - found[5] < found[11] - found[12]  # slow at first


@pytest.mark.parametrize("make", [linear_with_warmup, cosine_with_warmup])
def test_no_epoch_of_a_schedule_per_epoch_has_rate_0(make):
    found = rates(make, 4, warmup=0.5, per_epoch=True)
    assert found == pytest.approx([1, 2, 2, 1, 0])
    assert all(found[:4])
