"""A mean over tokens, not over batches."""

import math
from types import SimpleNamespace

import torch

from src.models.token_mean import TokenMean


def test_each_token_counts_once():
    mean = TokenMean()
    mean.add(torch.tensor(6.0), torch.tensor(2))
    mean.add(torch.tensor(4.0), torch.tensor(8))
    assert mean.value(None) == 1.0
    assert math.isnan(TokenMean().value(None))


def test_the_sums_of_a_checkpoint_count_in_one_process_alone():
    for first, expected in ((True, [3.0, 2.0]), (False, [0.0, 0.0])):
        mean = TokenMean()
        mean.take_over([3.0, 2.0], SimpleNamespace(is_global_zero=first))
        assert mean.sums == expected


def test_processes_add_up():
    reduced = []

    def reduce(mine, reduce_op):
        reduced.append((mine.tolist(), reduce_op))
        return mine * 2

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    mean = TokenMean()
    mean.add(torch.tensor(6.0), torch.tensor(3))
    assert mean.everywhere(SimpleNamespace(world_size=2, strategy=strategy)) == [12.0, 6.0]
    assert reduced == [([6.0, 3.0], "sum")]
