"""Build data, model and trainer from the config, in the order in which the tasks need them."""

import difflib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ModelCheckpoint, ProgressBar

from src.callbacks.caption_samples import LOGGED, CaptionSamples
from src.callbacks.checkpointing import AtomicCheckpointIO
from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.processor import load_processor
from src.metrics.cider import CiderReward
from src.models.vit_gpt2 import VitGpt2
from src.utils.errors import ConfigErrors, UserError
from src.utils.files import local_path
from src.utils.lightning_compat import leave_signals_alone
from src.utils.logging import get_logger
from src.utils.precision import choose_precision
from src.utils.run_folder import plain_config

log = get_logger(__name__)
IGNORED_WARNINGS = (
    ".*does not have many workers.*", ".*exists and is not empty.*", ".*smaller than the logging interval.*",
    ".*mixed-precision.*", ".*find unused parameters.*", ".*Found .* module\\(s\\) in eval mode.*", ".*LeafSpec.*",
    ".*tensorboardX.*", ".*is not supported by the model summary.*", ".*sync_dist=True.*",
    ".*callbacks used to create the checkpoint.*", ".*dirpath has changed.*", ".*has `__len__` defined.*",
    ".*missing from font.*",
)  # fmt: skip
VERBOSE_LOGGERS = (
    "pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda", "httpx", "litdata",
    "pytorch_lightning.trainer.connectors.checkpoint_connector", "lightning_fabric.utilities.distributed",
)  # fmt: skip
UNSUPPORTED = {  # a checkpoint holds the trained weights alone, and a step divides by the tokens of equal windows
    "GradientAccumulationScheduler", "WeightAveraging", "EMAWeightAveraging", "StochasticWeightAveraging",
}  # fmt: skip
FROM_TRAINING = ("datamodule", "model", "seed")
SOURCES = ("dataset", "train_dir", "data_dir")  # settings that name where data come from
METRICS = ("val/loss", "val/loss_best", "train/loss", "train/loss_step", "train/grad_norm", "train/reward")


def silence_libraries(config: DictConfig) -> None:
    """Hide warnings that mean nothing to a user; `extras.ignore_warnings=true` hides all."""
    warnings.filterwarnings("ignore", "|".join(IGNORED_WARNINGS))
    warnings.filterwarnings("ignore", module=r"PIL\.")  # unreadable images are skipped and logged by name
    if config.extras.ignore_warnings:
        warnings.filterwarnings("ignore")
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def check_trainer(config: DictConfig) -> None:
    """Refuse, before data is read, what this machine or this project cannot train with."""
    trainer, problems = config.trainer, []
    accelerator, strategy = str(trainer.accelerator), trainer.get("strategy") or "auto"
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    launched = max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    alone = strategy == "auto" and trainer.get("devices") == 1 and trainer.get("num_nodes", 1) == 1
    if not {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(accelerator, True):
        problems.append(f"trainer.accelerator={accelerator}; expected such a device here; set trainer=auto")
    if strategy != "auto" and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        problems.append(
            f"trainer.strategy={strategy} in a multirun (-m); expected one process a job, as those of one job remain "
            "for the next; set trainer=default, or start each job by a command of its own"
        )
    if launched > 1 and alone:
        problems.append(
            f"{launched} processes were launched and trainer.devices=1 without a strategy would train as many equal "
            f"runs; expected one run; set trainer=ddp trainer.devices={os.environ.get('LOCAL_WORLD_SIZE') or launched}"
        )
    for name, node in (config.get("callbacks") or {}).items():
        kind = str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, DictConfig) else ""
        if kind in UNSUPPORTED:
            problems.append(f"callbacks.{name}={kind} has no effect here; remove it: ~callbacks.{name}")
    if problems:
        raise ConfigErrors(problems)


def with_training_config(config: DictConfig, trained: dict[str, Any]) -> DictConfig:
    """Return the config with data, model, seed and precision of the training run, but for what the command line sets.

    fp16 stays with the GPU that it was chosen for.
    """
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    keys = {override.split("=", 1)[0].lstrip("+") for override in overrides}
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    merged: Any = OmegaConf.create(OmegaConf.to_container(own, resolve=True))
    with open_dict(merged):
        for name in FROM_TRAINING:
            if name not in keys and name in trained:
                merged[name] = trained[name]
        for key in keys:
            if "." in key and key.split(".")[0] in FROM_TRAINING:
                OmegaConf.update(merged, key, OmegaConf.select(config, key))
        precision = trained.get("trainer", {}).get("precision")
        if "trainer.precision" not in keys and precision and not str(precision).startswith("16"):
            merged.trainer.precision = precision
    return merged


def prepare(config: DictConfig) -> None:
    """Check what does not depend on data, hide library warnings and seed all generators."""
    silence_libraries(config)
    check_trainer(config)
    if config.get("seed") is not None:
        pl.seed_everything(config.seed, workers=True, verbose=False)


def build(
    config: DictConfig, datamodule: CaptionDataModule, training: bool = False, resume_step: int | None = None
) -> tuple[VitGpt2, pl.Trainer]:
    """Write what is known of the data, then build model and trainer; resume_step: step that a run continues at."""
    model, trainer = build_model(config, datamodule), build_trainer(config, resume_step)
    fit_to_data(trainer, datamodule, training)
    log.info("model    %s", describe_model(config, model, training))
    device = trainer.strategy.root_device
    kernels = "cpu" if model.captioner.uses_cpu_kernels(device) else "reference"
    processes = f"{trainer.world_size} processes, " if trainer.world_size > 1 else ""
    log.info("machine  %s%s, %s, %s kernels", processes, device_name(device), trainer.precision, kernels)
    datamodule.write_files(config.paths.output_dir)
    return model, trainer


def describe_model(config: DictConfig, model: VitGpt2, training: bool) -> str:
    """Return the base of a model, its weights, and how many of them train by which method."""
    method = config.model.get("train") or "last_blocks"
    total = sum(weight.numel() for weight in model.model.parameters())
    trained = sum(weight.numel() for weight in model.trained_weights().values())
    how = f"; {trained:,} train ({trained / total:.0%}, {method})" if training else ""
    base = model.captioner.base_id
    return f"{local_path(base) if Path(base).is_dir() else base}, {total:,} weights{how}"


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or the number of a CPU's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu with {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def build_data(config: DictConfig) -> CaptionDataModule:
    """Build the processor and the data module, read, checked and split, before a model is loaded."""
    datamodule: CaptionDataModule = instantiate(config.datamodule)
    datamodule.prepare_data()  # a missing folder is told before the hub is asked for the model
    names = ("checkpoint", "revision", "from_encoder_decoder", "image_size")
    datamodule.processor = load_processor(**{name: config.model.get(name) for name in names})
    try:
        datamodule.setup()
    except UserError:
        datamodule.write_files(config.paths.output_dir)  # skipped.csv, where rows were the reason
        raise
    _log_data(config, datamodule)
    return datamodule


def _log_data(config: DictConfig, datamodule: CaptionDataModule) -> None:
    """Log the source, what was read of it and the sizes of the splits."""
    source = next((str(config.datamodule[key]) for key in SOURCES if config.datamodule.get(key)), "")
    log.info("data     %s", local_path(source) if Path(source).exists() else source)
    if datamodule.table:
        log.info("         %s", datamodule.table.summary())
    train, val, test = (f"{datamodule.num_images(split):,}" for split in ("train", "val", "test"))
    log.info("splits   %s train, %s validation and %s test images", train, val, test)


def build_model(config: DictConfig, datamodule: CaptionDataModule) -> VitGpt2:
    """Build the model with the processor of the data."""
    build = instantiate(config.model, _partial_=True)  # partial: Hydra would build what stands in run_config
    generation = dict(config.model.get("generation") or {})
    generation["max_length"] = generation.get("max_length") or datamodule.generation_length
    is_scst, images = config.model.get("objective") == "scst", datamodule.splits["train"]
    if is_scst and not images:
        raise UserError(
            "model.objective=scst without a table of training captions; expected one; use datamodule=folder"
        )
    reward = CiderReward(images) if is_scst else None
    settings = {"run_config": plain_config(config), "generation": generation, "reward": reward}
    return build(processor=datamodule.processor, **settings)


def count_data(datamodule: CaptionDataModule) -> dict[str, float]:
    """Count images and skipped rows for `metrics.json`."""
    counts: dict[str, float] = {f"data/{split}_images": datamodule.num_images(split) for split in datamodule.splits}
    return counts | {"data/skipped_rows": len(datamodule.table.skipped) if datamodule.table else 0}


def build_trainer(config: DictConfig, resume_step: int | None = None) -> pl.Trainer:
    """Build the trainer with the callbacks and loggers of their groups and of `+trainer.callbacks`."""
    settings = config.trainer
    loggers = _instantiate_group(config.get("logger"), resume_step)
    callbacks = [*_instantiate_group(config.get("callbacks")), *instantiate(settings.get("callbacks") or [])]
    without: list[type] = [] if loggers or settings.get("logger") else [LearningRateMonitor]
    without += [ProgressBar] if settings.get("enable_progress_bar") is False else []
    without += [Checkpoint] if settings.get("enable_checkpointing") is False else []
    callbacks = [callback for callback in callbacks if not isinstance(callback, tuple(without))]
    check_monitors(callbacks)
    for callback in callbacks:
        several = isinstance(callback, ModelCheckpoint) and callback.save_top_k not in (0, 1)
        if several and callback.filename and "{" not in callback.filename:
            callback.filename += "-{epoch}-{step}"  # else each file would overwrite the one before
    trainer: pl.Trainer = instantiate(
        settings,
        precision=choose_precision(settings.precision, settings.accelerator),
        callbacks=callbacks,
        enable_progress_bar=any(isinstance(one, ProgressBar) for one in callbacks),  # not Lightning's own
        logger=loggers or settings.get("logger") or False,
        plugins=[AtomicCheckpointIO(), *instantiate(settings.get("plugins") or [])],
        use_distributed_sampler=False,  # the loaders divide the images among the processes
    )
    leave_signals_alone(trainer)
    return trainer


def _instantiate_group(group: DictConfig | None, resume_step: int | None = None) -> list[Any]:
    nodes = [node for node in (group or {}).values() if isinstance(node, DictConfig) and "_target_" in node]
    # These two drop what was logged after the step from which a run resumes.
    purge = {} if resume_step is None else {"purge_step": resume_step}
    purging = ("TensorBoardLogger", "CsvLogger")
    return [instantiate(node, **(purge if node["_target_"].endswith(purging) else {})) for node in nodes]


def check_monitors(callbacks: Sequence[pl.Callback]) -> None:
    """Refuse a `monitor` that nothing logs, not even a callback from outside; Lightning finds it after an epoch."""
    names, sampled = [*METRICS], [f"val/{name}" for name in LOGGED]
    for callback in callbacks:
        if isinstance(callback, CaptionSamples) and callback.every_n_epochs == 1 and callback.max_images:
            names += sampled
    packages = {type(callback).__module__.split(".")[0] for callback in callbacks}
    for callback in callbacks if packages <= {"src", "pytorch_lightning"} else ():
        monitor = getattr(callback, "monitor", None)
        if monitor and monitor not in names:
            near = difflib.get_close_matches(monitor, names, n=1, cutoff=0.4) or ["val/loss"]
            raise UserError(
                f"monitor={monitor} of {type(callback).__name__}; expected one of {', '.join(names)}; "
                f"set monitor={near[0]}"
                + (", or caption each epoch with callbacks.caption_samples.every_n_epochs=1" * (monitor in sampled))
            )


def fit_to_data(trainer: pl.Trainer, datamodule: CaptionDataModule, training: bool) -> None:
    """Let fractions of the batches be at least one batch; refuse what the data cannot fill."""
    counts = {split: datamodule.num_images(split) for split in datamodule.splits}
    if training and not counts["train"]:
        raise UserError("no image to train on; expected some; set datamodule.split_ratios=[0.8,0.1,0.1]")
    for split in ("train", "val", "test") if training else ("test",):
        batches = -(-counts[split] // (datamodule.batch_size * trainer.world_size))
        limit = getattr(trainer, f"limit_{split}_batches")
        if isinstance(limit, float) and 0 < limit < 1 and int(batches * limit) == 0:
            setattr(trainer, f"limit_{split}_batches", 1)
        if limit and 0 < counts[split] < trainer.world_size:
            raise UserError(
                f"the {split} split has {counts[split]} images for {trainer.world_size} processes; expected one "
                f"or more each; set trainer.devices={counts[split]}, or larger datamodule.split_ratios"
            )


def can_test(trainer: pl.Trainer, datamodule: CaptionDataModule) -> bool:
    """Whether there is a test image and a batch of them."""
    return bool(datamodule.splits["test"]) and bool(trainer.limit_test_batches)
