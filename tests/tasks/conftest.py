"""One finished run that many tests look at."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.tasks.running import PROBE, Probe, run_train


class Run(NamedTuple):
    """A run folder, what `train` returned and what its probe kept."""

    folder: Path
    metrics: dict[str, float]
    seen: dict


MAIN = ("trainer.max_epochs=2", "model.optimizer.lr=0.01", "callbacks.early_stopping.patience=9")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_checkpoint, flickr_folder) -> Run:
    """Two epochs of four steps, scored beside the untouched base."""
    folder = tmp_path_factory.mktemp("main") / "logs" / "train" / "runs" / "2026-01-01_00-00-00"
    histograms = "callbacks.weight_histograms.gradients_every_n_steps=3"
    metrics = run_train(folder, tiny_checkpoint, flickr_folder, *MAIN, histograms, PROBE)
    return Run(folder, metrics, Probe.seen)
