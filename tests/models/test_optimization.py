"""Which weights decay, and how the rate rises and falls."""

from functools import partial

import pytest
import torch
from torch import nn

from src.models.optimization import linear_with_warmup, make_optimizer


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (1.0, {"matrices": (2, 0.1, 1.0), "vectors": (3, 0.0, 1.0)}),
        (
            0.1,
            {
                "decoder_matrices": (1, 0.1, 1.0),
                "decoder_vectors": (1, 0.0, 1.0),
                "encoder_matrices": (1, 0.1, 0.1),
                "encoder_vectors": (2, 0.0, 0.1),
            },
        ),
    ],
)
def test_matrices_decay_biases_and_norms_do_not_and_the_encoder_may_have_its_own_rate(factor, expected):
    encoder = nn.ModuleDict({"layer": nn.Linear(3, 4), "norm": nn.LayerNorm(4, bias=False)})
    model = nn.ModuleDict({"encoder": encoder, "decoder": nn.Linear(4, 2)})
    factory = partial(torch.optim.AdamW, lr=1.0, weight_decay=0.1)
    groups = make_optimizer(factory, dict(model.named_parameters()), factor).param_groups
    found = {group["name"]: (len(group["params"]), group["weight_decay"], group["lr"]) for group in groups}
    assert found == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"warmup": 0.25}, [0, 1, 2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3, 0]),
        ({"warmup": 0.0}, [2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0]),
        ({"warmup": 0.25, "per_epoch": True}, [1, 2, 2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3, 0]),
        ({"warmup": 0.25, "cosine": True}, [0, 1, 2, 1.866, 1.5, 1, 0.5, 0.134, 0]),
    ],
)
def test_the_rate_rises_in_the_warmup_and_falls_linearly_or_in_a_cosine(settings, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = linear_with_warmup(optimizer, 8, **settings), []
    for _ in range(9):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(expected, abs=1e-3)
