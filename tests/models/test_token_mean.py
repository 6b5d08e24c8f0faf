"""The mean over tokens counts each token once, over batches and processes."""

import math
from types import SimpleNamespace

import torch

from src.models.token_mean import TokenMean


def test_a_mean_over_tokens_counts_each_token_once():
    mean = TokenMean()
    assert math.isnan(mean.compute(None))
    mean.update(torch.tensor(6.0), torch.tensor(2))
    mean.update(torch.tensor(4.0), torch.tensor(8))
    assert mean.compute(None) == 1.0


def test_sums_of_a_checkpoint_count_in_one_process():
    mean = TokenMean()
    for first, expected in ((True, [3.0, 2.0]), (False, [0.0, 0.0])):
        mean.load([3.0, 2.0], SimpleNamespace(is_global_zero=first))
        assert mean.sync(None) == expected
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda sums, reduce_op: sums * 2)
    mean.load([3.0, 2.0], None)
    assert mean.sync(SimpleNamespace(world_size=2, strategy=strategy)) == [6.0, 4.0]
