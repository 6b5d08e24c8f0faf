"""What `train.py` does, in order: data, model, fit, test, report."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint

from src.callbacks.checkpointing import resumed_metrics
from src.datamodule.caption_datamodule import CaptionDataModule
from src.evaluate import evaluate
from src.metrics.cider import CiderReward
from src.models.checkpoint import METADATA_KEY, read_checkpoint
from src.models.restore import FOR_TRAINING, scoring_settings
from src.models.vit_gpt2 import VitGpt2
from src.report.figures import write_losses
from src.report.html import write_report
from src.report.run_files import RunFiles, finite_floats, read_json_object
from src.report.scores import print_summary
from src.tasks.building import build, build_data, can_test, count_data, prepare, with_training_config
from src.utils.files import atomic_write, write_json, write_text
from src.utils.lightning_compat import ScoresFirstTensorBoard, all_processes_end
from src.utils.logging import get_logger
from src.utils.run_folder import check_same_settings, check_same_splits, checkpoint_file, plain_config, resumed_run

log = get_logger(__name__)


def train(config: DictConfig) -> dict[str, float]:
    """Fine-tune, then score the best checkpoint beside the untouched base; return what `metrics.json` holds."""
    config, start = _second_stage(config)
    prepare(config)
    folder, settings = Path(config.paths.output_dir), plain_config(config)
    ckpt_path, resume_step = (None, None) if start else _checkpoint_to_resume(config)
    scorer, datamodule = instantiate(config.metrics), build_data(config)
    if source := start or ckpt_path:
        splits = {image.image_id: split for split, images in datamodule.splits.items() for image in images}
        check_same_splits(splits, source)
    model, trainer = build(config, datamodule, config.train, resume_step)
    metrics: dict[str, Any] = count_data(datamodule)
    if start:
        model.load_state_dict(model.match_checkpoint(read_checkpoint(start)), strict=False)
    if config.model.objective == "scst":
        metrics["scst/signature"] = CiderReward.signature(config.model.scst.num_samples)
    if source:  # until here the settings of the run that is resumed, or not those of the first stage, stood there
        write_text(folder / "config_resolved.yaml", OmegaConf.to_yaml(settings))
    for logger in trainer.loggers:
        logger.log_hyperparams(settings)
    if trainer.is_global_zero:
        about = RunFiles(folder).read("run.json", read_json_object) or {}
        about |= {"device": str(trainer.strategy.root_device), "precision": str(trainer.precision), "status": "running"}
        write_json(folder / "run.json", about)
    with all_processes_end(trainer):
        if config.train:
            ckpt_path, fitted = _fit(model, datamodule, trainer, ckpt_path)
            metrics |= fitted
            folder = trainer.strategy.broadcast(folder)  # each rank composed its own; one run has one
            if trainer.is_global_zero:
                write_json(folder / "metrics.json", metrics)
                _copy_best(ckpt_path, folder)
        if config.test and can_test(trainer, datamodule):
            metrics |= evaluate(model, datamodule, trainer, folder, scorer, ckpt_path, config.zero_shot, metrics)
        elif config.test:
            log.info("no test images (datamodule.split_ratios, limit_test_batches): the test is skipped")
    end_run(trainer, folder, settings, metrics)
    return metrics


def end_run(trainer: pl.Trainer, folder: Path, settings: dict[str, Any], metrics: dict[str, float]) -> None:
    """Log the scores with the settings to TensorBoard, and write the reports on rank 0."""
    for logger in trainer.loggers:
        if isinstance(logger, ScoresFirstTensorBoard):
            logger.log_scores(settings, metrics, trainer.global_step)
    if trainer.is_global_zero:
        write_reports(folder, metrics)


def _second_stage(config: DictConfig) -> tuple[DictConfig, Path | None]:
    """For SCST, return the config with data and model of the run that ckpt_path names, and the file to start from.

    The file is None where the run had that objective too: it is resumed.
    """
    if not config.get("ckpt_path") or config.model.objective != "scst":
        return config, None
    file = checkpoint_file(config.ckpt_path, config.paths.log_dir, "ckpt_path", config.task_name)
    first = read_checkpoint(file or config.ckpt_path)[METADATA_KEY]["config"].get("model") or {}
    resumes, lr = first.get("objective") == "scst", (first.get("optimizer") or {}).get("lr")
    settings, own = scoring_settings(config.ckpt_path, file), plain_config(config)["model"]
    settings["model"] |= {name: own[name] for name in FOR_TRAINING & own.keys()}
    if isinstance(lr, float):
        settings["model"]["optimizer"]["lr"] = lr if resumes else lr * own["scst"]["lr_factor"]
    return with_training_config(config, settings), None if resumes else file


def _checkpoint_to_resume(config: DictConfig) -> tuple[str | None, int | None]:
    """Return the checkpoint that training resumes from, and the optimizer step where it is in the run's own folder."""
    if not config.get("ckpt_path"):
        return None, None
    file = checkpoint_file(config.ckpt_path, config.paths.log_dir, "ckpt_path", config.task_name, "last")
    ckpt_path = str(file or config.ckpt_path)
    content = read_checkpoint(ckpt_path)
    check_same_settings(plain_config(config), content[METADATA_KEY].get("config") or {}, ckpt_path)
    log.info("resuming from step %d of %s", content["global_step"], ckpt_path)
    run = resumed_run(ckpt_path, config.paths.log_dir, config.task_name)
    return ckpt_path, content["global_step"] if run else None


def _fit(
    model: VitGpt2, datamodule: CaptionDataModule, trainer: pl.Trainer, ckpt_path: str | None
) -> tuple[str | None, dict[str, float]]:
    started = time.monotonic()
    trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    metrics: dict[str, Any] = resumed_metrics(trainer) | finite_floats(trainer.callback_metrics)
    metrics["time/fit_seconds"] = round(time.monotonic() - started, 3)
    saver = next((one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)), None)
    best = trainer.strategy.broadcast(saver.best_model_path if saver else "")
    if saver and saver.best_model_score is not None:
        metrics = finite_floats({f"{saver.monitor}_best": saver.best_model_score}) | metrics
    fast = getattr(trainer, "fast_dev_run", False)
    if saver and saver.save_top_k and not best and not fast:  # it ended before a validation
        best = str(Path(str(saver.dirpath)) / "best.ckpt")
        trainer.save_checkpoint(best)
        if datamodule.splits["val"] and trainer.limit_val_batches:
            trainer.validate(model, datamodule=datamodule, verbose=False)
            metrics |= finite_floats(trainer.callback_metrics)
    metrics["data/unreadable_images"] = len(datamodule.all_unreadable())
    metrics["data/near_duplicates"] = len(datamodule.duplicates)  # images of val and test like one of another split
    return best or None, metrics


def _copy_best(best: str | None, folder: Path) -> None:
    target = folder / "checkpoints" / "best.ckpt"
    if best and Path(best).resolve() != target.resolve():
        with atomic_write(target, "wb") as copy, open(best, "rb") as original:
            shutil.copyfileobj(original, copy, 1 << 20)


def write_reports(folder: Path, metrics: dict[str, float]) -> None:
    """Write `metrics.json`, `losses.png` and `report.html`, and print the summary."""
    write_json(folder / "metrics.json", metrics)
    try:
        write_losses(folder)
        write_report(folder)
    except OSError as error:  # the numbers are written already
        log.warning("the report cannot be written (%s); free some space", error.strerror or error)
    print_summary(folder, metrics)
