"""What `train.py` does, in order: data, model, fit, test, report."""

import time
from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from src.callbacks.csv_history import carry_history
from src.callbacks.last_checkpoint import earlier_metrics
from src.datamodule.caption_datamodule import CaptionDataModule
from src.evaluate import evaluate, finite_floats
from src.models.checkpoint import read_checkpoint
from src.report.curves import write_losses
from src.report.html import write_report
from src.report.summary import print_summary
from src.tasks.building import build_data, build_model, build_trainer, quiet, run_dir
from src.utils.logging import get_logger, rank
from src.utils.run_folder import find_checkpoint, write_json

log = get_logger(__name__)


def train(config: DictConfig) -> dict[str, float]:
    """Fine-tune, then score the best checkpoint beside the untouched base; returns what `metrics.json` holds.

    Raises:
        UserError: a mistake in the data, the settings or the checkpoint, or the run was told to stop.
    """
    quiet(config)
    ckpt_path = find_checkpoint(config.get("ckpt_path"), config.paths.log_dir)
    folder = run_dir(config)
    if ckpt_path:
        steps = read_checkpoint(ckpt_path)["global_step"]
        if rank() == 0:
            carry_history(Path(ckpt_path).parents[1], folder, steps)
            log.info("going on from step %d of %s", steps, ckpt_path)
    if config.get("seed") is not None:
        pl.seed_everything(config.seed, workers=True, verbose=False)
    scorer = instantiate(config.metrics)
    datamodule = build_data(config)
    if rank() == 0:
        datamodule.write_files(folder)
    model = build_model(config, datamodule)
    trainer = build_trainer(config, scorer)
    _log_settings(trainer, config)

    metrics = datamodule_metrics(datamodule)
    if config.train:
        started = time.monotonic()
        trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        metrics |= earlier_metrics(trainer) | finite_floats(trainer.callback_metrics)
        metrics["time/fit_seconds"] = round(time.monotonic() - started, 3)
        folder = trainer.strategy.broadcast(folder)  # each rank composed its own; one run has one
        best = folder / "checkpoints" / "best.ckpt"
        if not (_is_there(best, trainer) or config.trainer.fast_dev_run):  # stopped before a validation
            trainer.save_checkpoint(best)
            trainer.validate(model, datamodule=datamodule, verbose=False)
            metrics |= finite_floats(trainer.callback_metrics)
        ckpt_path = str(best) if _is_there(best, trainer) else ckpt_path
        metrics["data/unreadable_images"] = len(datamodule.all_unreadable())
        if trainer.is_global_zero:
            write_json(folder / "metrics.json", metrics)
    if config.test:
        metrics |= evaluate(model, datamodule, trainer, folder, scorer, ckpt_path, config.zero_shot)
    if trainer.is_global_zero:
        finish(folder, metrics)
    return metrics


def finish(folder: Path, metrics: dict[str, float]) -> None:
    """Write `metrics.json`, `losses.png` and `report.html`, and print the summary."""
    write_json(folder / "metrics.json", metrics)
    try:
        write_losses(folder)
        write_report(folder)
    except OSError as error:  # the numbers are safe already
        log.warning("the report cannot be written (%s); free some space", error.strerror or error)
    print_summary(folder, metrics)


def datamodule_metrics(datamodule: CaptionDataModule) -> dict[str, float]:
    """How much data there is and how much of it was put aside."""
    counts = {f"data/{part}_images": len(images) for part, images in datamodule.splits.items()}
    return {**counts, "data/skipped_rows": len(datamodule.table.skipped) if datamodule.table else 0}


def _is_there(path: Path, trainer: pl.Trainer) -> bool:
    """Whether rank 0 sees the file: a network disk may show it to others later, and all must go the same way."""
    return trainer.strategy.broadcast(path.is_file())


def _log_settings(trainer: pl.Trainer, config: DictConfig) -> None:
    settings = OmegaConf.to_container(config, resolve=True)
    for logger in trainer.loggers:
        logger.log_hyperparams(settings)  # type: ignore[arg-type]
