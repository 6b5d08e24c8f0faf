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


@pytest.mark.parametrize(
    ("make", "settings", "expected"),
    [
        (linear_with_warmup, {"warmup": 0.25}, [0, 1, 2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3, 0]),
        (linear_with_warmup, {"warmup": 0.0}, [2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0]),
        (
            linear_with_warmup,
            {"warmup": 0.25, "per_epoch": True},
            [1, 2, 2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3, 0],
        ),
        (cosine_with_warmup, {"warmup": 0.25}, [0, 1, 2, 1.866, 1.5, 1, 0.5, 0.134, 0]),
    ],
)
def test_the_rate_rises_in_the_warmup_and_falls_linearly_or_in_a_cosine(make, settings, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = make(optimizer, 8, **settings), []
    for _ in range(9):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(expected, abs=1e-3)
