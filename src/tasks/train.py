"""What `train.py` does, in order: data, model, fit, test, report."""

import time

import pytorch_lightning as pl
from omegaconf import DictConfig

from src.evaluate import evaluate, numbers
from src.models.checkpoints import read_checkpoint
from src.report.summary import print_summary
from src.tasks.building import build_data, build_model, build_trainer, quiet, run_dir
from src.utils.logging import get_logger
from src.utils.run_folder import find_checkpoint, write_json

log = get_logger(__name__)


def train(config: DictConfig) -> dict[str, float]:
    """Fine-tune, then score the best checkpoint beside the untouched base; returns what `metrics.json` holds.

    Raises:
        UserError: a mistake in the data, the settings or the checkpoint, or the run was told to stop.
    """
    quiet(config)
    ckpt_path = find_checkpoint(config.get("ckpt_path"), config.paths.log_dir)
    if ckpt_path:
        read_checkpoint(ckpt_path)
    if config.get("seed") is not None:
        pl.seed_everything(config.seed, workers=True, verbose=False)
    folder = run_dir(config)
    datamodule = build_data(config)
    datamodule.write_files(folder)
    model = build_model(config, datamodule)
    trainer = build_trainer(config)
    _log_settings(trainer, config)

    metrics = datamodule_metrics(datamodule)
    if config.train:
        started = time.monotonic()
        trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        metrics |= numbers(trainer.callback_metrics) | {
            "time/fit_seconds": round(time.monotonic() - started, 3)
        }
        _keep(trainer, folder, metrics)
    if config.test:
        best = folder / "checkpoints" / "best.ckpt"
        chosen = str(best) if best.is_file() else ckpt_path
        metrics |= evaluate(model, datamodule, trainer, folder, ckpt_path=chosen, zero_shot=config.zero_shot)
    metrics["data/broken_images"] = len(datamodule.broken)
    _keep(trainer, folder, metrics)
    if trainer.is_global_zero:
        print_summary(folder, metrics)
    return metrics


def _keep(trainer: pl.Trainer, folder, metrics: dict[str, float]) -> None:
    if trainer.is_global_zero:
        write_json(folder / "metrics.json", metrics)


def datamodule_metrics(datamodule) -> dict[str, float]:
    """How much data there is and how much of it was put aside."""
    counts = {f"data/{part}_images": len(images) for part, images in datamodule.splits.items()}
    return {**counts, "data/skipped_rows": len(datamodule.table.skipped)}


def _log_settings(trainer: pl.Trainer, config: DictConfig) -> None:
    from omegaconf import OmegaConf

    settings = OmegaConf.to_container(config, resolve=True)
    for logger in trainer.loggers:
        logger.log_hyperparams(settings)  # type: ignore[arg-type]
