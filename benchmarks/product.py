"""This project's own training, built from its own configs, as the benchmarks run it."""

import atexit
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.callbacks.feature_cache import FeatureCache
from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.collate import CaptionBatch
from src.models.vit_gpt2 import VitGpt2
from src.tasks.building import build_data, build_model, build_trainer
from src.utils.resolvers import register_resolvers

ROOT = Path(__file__).resolve().parents[1]


def compose_config(*overrides: str) -> DictConfig:
    """train.py's config without loggers, callbacks and validation, writing into a temporary folder."""
    os.environ.setdefault("PROJECT_ROOT", str(ROOT))
    register_resolvers()
    folder = _scratch()
    plain = ["logger=none", "callbacks=none", "trainer=default", "trainer.enable_progress_bar=false"]
    plain += ["trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0"]
    paths = [f"paths.output_dir={folder}", f"paths.work_dir={folder}", f"paths.log_dir={folder}"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("train", [*plain, *paths, *overrides])


@functools.cache
def _scratch() -> str:
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    atexit.register(folder.cleanup)
    return folder.name


def build(config: DictConfig) -> tuple[CaptionDataModule, VitGpt2]:
    """The data module and the model of a config."""
    datamodule = build_data(config)
    return datamodule, build_model(config, datamodule)


class StepClock(pl.Callback):
    """Seconds and captions of each whole step: from one batch's start to the next one's, data included."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.captions: list[int] = []
        self.losses: list[float] = []
        self.image_ids: list[list[str]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: CaptionBatch, index: int) -> None:
        self.starts.append(time.perf_counter())
        self.captions.append(count_captions(batch))
        self.image_ids.append(batch.image_ids)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))

    def captions_per_second(self, skip: int = 1) -> float:
        """Over all steps between the first `skip` and the last, whose end nobody clocks."""
        return sum(self.captions[skip:-1]) / (self.starts[-1] - self.starts[skip])


def count_captions(batch: CaptionBatch) -> int:
    """Captions packed in a batch."""
    return int(((batch.position_ids == 0) & (batch.caption_index >= 0)).sum())


def train_steps(
    config: DictConfig,
    parts: tuple[CaptionDataModule, VitGpt2],
    steps: int,
    precision: str,
    callbacks: Any = (),
) -> StepClock:
    """Fit for one step to warm up, `steps` to clock, and one whose start ends the last of them."""
    datamodule, model = parts
    clock = StepClock()
    config = config.copy()
    config.trainer.update({"max_steps": steps + 2, "max_epochs": -1, "precision": precision})
    trainer = build_trainer(config)
    trainer.callbacks.extend([clock, *callbacks])
    trainer.fit(model, datamodule=datamodule)
    return clock


def first_batch(datamodule: CaptionDataModule) -> CaptionBatch:
    """The first training images in table order, as pixels or features, whichever the data module serves."""
    return next(iter(datamodule._loader("train", shuffle=False)))


def feature_cache(config: DictConfig) -> list[pl.Callback]:
    """The callback that lets the data module serve cached features, kept in this process's own folder."""
    return [FeatureCache(f"{config.paths.output_dir}/feature_cache", size_limit_gb=None)]
