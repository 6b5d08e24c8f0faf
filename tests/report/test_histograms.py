"""Histograms as densities over equal bins."""

import torch
from torch.utils.tensorboard import SummaryWriter

from src.report.histograms import BINS, read_ridges


def written(folder, values_by_step, tag="weights/encoder/layer.0.weight"):
    writer = SummaryWriter(str(folder))
    for step, values in values_by_step:
        writer.add_histogram(tag, values, step)
    writer.close()


def test_weights_that_are_all_equal_can_be_drawn(tmp_path):
    written(tmp_path, [(0, torch.zeros(10)), (1, torch.zeros(10))])
    ridge = read_ridges(tmp_path, "encoder")[0]
    assert ridge.name == "layer.0.weight".rpartition("layer.")[2]
    assert [len(density) for density in ridge.densities] == [BINS, BINS]


def test_an_epoch_that_was_run_again_counts_once(tmp_path):
    written(tmp_path, [(0, torch.randn(500)), (1, torch.randn(500)), (1, torch.randn(500) * 3)])
    ridge = read_ridges(tmp_path, "encoder")[0]
    assert ridge.epochs == [0, 1]
    assert max(ridge.densities[1]) < max(ridge.densities[0])


def test_the_other_half_is_not_read(tmp_path):
    written(tmp_path, [(0, torch.randn(5))])
    assert read_ridges(tmp_path, "decoder") == []
