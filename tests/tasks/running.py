"""`train.py` and `eval.py` within the tests' process, on a tiny checkpoint and synthetic images."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer

from src.tasks.eval import evaluate_checkpoint
from src.tasks.train import train
from src.utils.task_run import task_run
from tests.utils.composing import job

SMALL = (
    "metrics.meteor=false", "metrics.spice=false", "metrics.bootstrap_samples=50", "extras.print_config=false",
    "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "~callbacks.progress_bar",
)  # fmt: skip
TRAIN = (
    "datamodule.batch_size=8", "datamodule.num_workers=0",
    "datamodule.split_seed=3",  # 32, 4 and 4 of the 40 synthetic scenes
    "model.generation.num_beams=1", "model.generation.max_length=8", "trainer.max_epochs=1",
)  # fmt: skip
PROBE = "+callbacks.probe._target_=tests.tasks.running.Probe"


def run_train(folder: Path, checkpoint: Path, images_folder: Path, *overrides: str) -> dict[str, float]:
    """Run `train.py` with its files in `folder`; return what it returns."""
    data = (f"model.checkpoint={checkpoint}", f"datamodule.data_dir={images_folder}")
    return _run("train", train, folder, *TRAIN, *data, *overrides)


def run_second_stage(folder: Path, run: Path, *overrides: str) -> dict[str, float]:
    """Run `train.py experiment=scst` on the run folder `run`; return what it returns."""
    settings = ("experiment=scst", "trainer=default", "datamodule.num_workers=0")
    return _run("train", train, folder, *settings, f"ckpt_path={run}", *overrides)


def run_eval(folder: Path, *overrides: str) -> dict[str, float]:
    """Run `eval.py` with its files in `folder`; return what it returns."""
    return _run("eval", evaluate_checkpoint, folder, *overrides)


def _run(name: str, task: Any, folder: Path, *overrides: str) -> dict[str, float]:
    """In `<log_dir>/<task>/runs/<name>`, as the entries lay it, or elsewhere; the feature cache lies outside."""
    folder.mkdir(parents=True, exist_ok=True)
    log_dir = folder.parents[2] if folder.parent.name == "runs" else folder.parent
    cache = f"callbacks.feature_cache.cache_dir={log_dir.parent / 'feature_cache'}"
    with job(folder, *SMALL, cache, *overrides, name=name) as config:
        OmegaConf.update(config, "paths.log_dir", str(log_dir))
        with task_run(config):
            return task(config)


class Probe(Callback):
    """Keep in `seen` what a run's files do not hold: weights before and after, val/loss of the sanity check.

    stop_in_step: send this process SIGTERM in that optimizer step.
    """

    seen: dict[str, Any]

    def __init__(self, stop_in_step: int | None = None) -> None:
        self.stop_in_step = stop_in_step

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Probe.seen = {"before": weights_of(pl_module), "trained": set(pl_module.trained_weights())}

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Probe.seen["sanity"] = float(trainer.callback_metrics["val/loss"])

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.stop_in_step:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Probe.seen["after"] = weights_of(pl_module)


def weights_of(module: Any) -> dict[str, torch.Tensor]:
    """Return a copy of all weights and buffers."""
    return {name: value.detach().clone() for name, value in module.model.state_dict().items()}


def saved_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether weights are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def captions(folder: Path, column: str = "caption") -> dict[str, str]:
    """Return a column of a run's predictions.csv by image."""
    return {row["image_id"]: row[column] for row in rows(folder / "predictions.csv")}


def validations(folder: Path) -> list[float]:
    """Return val/loss of each epoch."""
    return [float(row["val/loss"]) for row in rows(folder / "csv" / "metrics.csv") if row["val/loss"]]


def same_images_in_all_splits(images_folder: Path, folder: Path) -> Path:
    """Write images with one caption each, the same in train, val and test."""
    (folder / "Images").mkdir(parents=True)
    captions_of = {row["image"]: row["caption"] for row in reversed(rows(images_folder / "captions.txt"))}
    images = []
    for name, caption in captions_of.items():
        for split in ("train", "val", "test"):
            shutil.copy(images_folder / "Images" / name, folder / "Images" / f"{split}_{name}")
            images.append({"filename": f"{split}_{name}", "split": split, "sentences": [{"raw": caption}]})
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    return folder
