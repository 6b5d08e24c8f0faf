"""Write the phase that a training is in to a file of one byte, for a process that watches it."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from src.callbacks.feature_cache import FeatureCache

VARIABLE = "FAULTS_PHASE"  # names the file
PHASES = ("start", "cache", "load", "step", "checkpoint", "validation", "test", "report")


def note(phase: str) -> None:
    """Say that `phase` begins."""
    handle = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT)
    os.pwrite(handle, bytes([PHASES.index(phase)]), 0)
    os.close(handle)


def look(file: Path) -> str:
    """The phase that was noted last."""
    return PHASES[file.read_bytes()[0]]


class Phases(pl.Callback):
    """Notes the phases of a run as they begin; writing a checkpoint lasts until something else begins."""

    def setup(self, *_: Any, stage: str) -> None:
        note("load")

    def on_train_batch_start(self, *_: Any) -> None:
        note("step")

    def on_save_checkpoint(self, *_: Any) -> None:
        note("checkpoint")

    def on_validation_start(self, *_: Any) -> None:
        note("validation")

    def on_test_start(self, *_: Any) -> None:
        note("test")

    def on_test_end(self, *_: Any) -> None:
        note("report")


class WatchedCache(FeatureCache):
    """The feature cache, which says when it is being built."""

    def _make_space(self, *arguments: Any) -> bool:
        note("cache")
        return super()._make_space(*arguments)
