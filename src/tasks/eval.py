"""What `eval.py` does: score a checkpoint with the config of the run that made it, or a predictions file."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from src.datamodule.caption_datamodule import CaptionDataModule
from src.evaluate import evaluate, rescore
from src.models.restore import scoring_settings
from src.tasks.building import build, build_data, can_test, count_data, prepare, with_training_config
from src.tasks.train import end_run, write_reports
from src.utils.errors import UserError
from src.utils.files import write_text
from src.utils.lightning_compat import all_processes_end
from src.utils.logging import get_logger
from src.utils.run_folder import checkpoint_file, plain_config, read_splits

log = get_logger(__name__)


def evaluate_checkpoint(config: DictConfig) -> dict[str, float]:
    """Score `ckpt_path` on test images beside its untouched base, or score `predictions` alone."""
    folder = Path(config.paths.output_dir)
    if config.get("predictions"):
        metrics = rescore(Path(config.predictions), folder, instantiate(config.metrics))
        write_reports(folder, metrics)
        return metrics
    if not config.ckpt_path:
        raise UserError(
            "ckpt_path is not set; expected a checkpoint to score; set ckpt_path=<run>/checkpoints/best.ckpt, "
            "ckpt_path=last or predictions=<csv>"
        )
    ckpt_path = checkpoint_file(config.ckpt_path, config.paths.log_dir, "ckpt_path")
    config = with_training_config(config, scoring_settings(config.ckpt_path, ckpt_path))
    write_text(folder / "config_resolved.yaml", OmegaConf.to_yaml(plain_config(config)))  # as it is scored
    prepare(config)
    scorer, datamodule = instantiate(config.metrics), build_data(config)
    model, trainer = build(config, datamodule)
    metrics = count_data(datamodule) | _count_seen_in_training(datamodule, ckpt_path)
    if not can_test(trainer, datamodule):
        raise UserError(
            "no test image to score; expected one or more; set datamodule.split_ratios=[0,0,1] for all images, and "
            "trainer.limit_test_batches=1.0"
        )
    zero_shot = config.zero_shot and ckpt_path is not None  # a saved folder does not hold its base
    file = str(ckpt_path) if ckpt_path else None
    with all_processes_end(trainer):
        metrics |= evaluate(model, datamodule, trainer, folder, scorer, file, zero_shot, metrics)
    end_run(trainer, folder, plain_config(config), metrics)
    return metrics


def _count_seen_in_training(datamodule: CaptionDataModule, ckpt_path: Path | None) -> dict[str, float]:
    before = read_splits(ckpt_path) if ckpt_path else {}
    seen = [image.image_id for image in datamodule.splits["test"] if before.get(image.image_id) == "train"]
    if seen:
        log.warning(
            f"{len(seen)} of {len(datamodule.splits['test'])} test images have the names of images that the checkpoint "
            f"was trained on (first: {seen[0]}): the scores do not measure it on new images; keep "
            "datamodule.split_seed and split_ratios of its run"
        )
    return {"data/test_images_trained_on": len(seen)} if before else {}
