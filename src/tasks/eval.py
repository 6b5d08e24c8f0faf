"""What `eval.py` does: score a checkpoint with the config of the run that made it, or a predictions file."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from src.evaluate import evaluate, rescore
from src.models.restore import scoring_settings
from src.tasks.building import build_data, build_model, build_trainer, quiet, run_dir
from src.tasks.train import datamodule_metrics, finish
from src.utils.logging import rank
from src.utils.run_folder import find_checkpoint

FROM_TRAINING = ("datamodule", "model", "seed")


def evaluate_checkpoint(config: DictConfig) -> dict[str, float]:
    """Score `ckpt_path` on test images beside its untouched base, or score `predictions` alone.

    Raises:
        UserError: a mistake in either.
    """
    quiet(config)
    folder = run_dir(config)
    if config.get("predictions"):
        metrics = rescore(Path(config.predictions), folder, instantiate(config.metrics))
        finish(folder, metrics)
        return metrics
    ckpt_path = find_checkpoint(config.get("ckpt_path"), config.paths.log_dir)
    assert ckpt_path is not None  # the check of the config asks for it
    config = with_training_config(config, scoring_settings(ckpt_path, Path(ckpt_path)))
    if config.get("seed") is not None:
        pl.seed_everything(config.seed, workers=True, verbose=False)
    scorer = instantiate(config.metrics)
    datamodule = build_data(config)
    if rank() == 0:
        datamodule.write_files(folder)
    model = build_model(config, datamodule)
    trainer = build_trainer(config)
    metrics = datamodule_metrics(datamodule)
    metrics |= evaluate(model, datamodule, trainer, folder, scorer, ckpt_path, config.zero_shot)
    if trainer.is_global_zero:
        finish(folder, metrics)
    return metrics


def with_training_config(config: DictConfig, trained: dict[str, Any]) -> DictConfig:
    """The config with data, model, seed and precision of the training run, but for what the command line sets.

    fp16 stays with the GPU that it was chosen for.
    """
    from hydra.core.hydra_config import HydraConfig

    said = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    keys = {word.split("=", 1)[0].lstrip("+") for word in said}
    merged: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    with open_dict(merged):
        for part in FROM_TRAINING:
            if part not in keys and part in trained:
                merged[part] = trained[part]
        for key in keys:
            if "." in key and key.split(".")[0] in FROM_TRAINING:
                OmegaConf.update(merged, key, OmegaConf.select(config, key))
        precision = trained.get("trainer", {}).get("precision")
        if "trainer.precision" not in keys and precision and not str(precision).startswith("16"):
            merged.trainer.precision = precision
    return merged
