"""From config to objects, in the order in which the tasks need them."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from src.callbacks.caption_samples import CaptionSamples
from src.datamodule.caption_datamodule import CaptionDataModule
from src.metrics.scorer import CaptionScorer
from src.models.checkpoint import AtomicCheckpointIO
from src.models.vit_gpt2 import VitGpt2
from src.tasks.processes import share_one_fate
from src.utils.errors import UserError
from src.utils.hardware import choose_precision, warn_of_software_bf16

IGNORED_WARNINGS = (".*does not have many workers.*", ".*`isinstance\\(treespec, LeafSpec\\)`.*", ".*exists and is not empty.*",
         ".*smaller than the logging interval.*", ".*mixed-precision.*", ".*find unused parameters.*",
         ".*Found .* module\\(s\\) in eval mode.*", ".*LeafSpec.*", ".*tensorboardX.*",
         ".*is not supported by the model summary.*", ".*sync_dist=True.*",
         ".*callbacks used to create the checkpoint.*")  # fmt: skip


VERBOSE_LOGGERS = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda",
        "pytorch_lightning.trainer.connectors.checkpoint_connector", "lightning_fabric.utilities.distributed",
        "httpx")  # fmt: skip


def quiet(config: DictConfig) -> None:
    """Keep warnings off the screen that tell a person nothing; `extras.ignore_warnings=true` drops all."""
    for pattern in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # unreadable images are refused and logged by name
    if config.extras.ignore_warnings:
        warnings.filterwarnings("ignore")
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def build_data(config: DictConfig) -> CaptionDataModule:
    """The data module, read, checked and split: mistakes in the data show before a model is loaded."""
    datamodule: CaptionDataModule = instantiate(config.datamodule)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def build_model(config: DictConfig, datamodule: CaptionDataModule) -> VitGpt2:
    """The model, and the data module told what its checkpoint wants."""
    # partial, since Hydra would build what stands in run_config
    build = instantiate(config.model, _partial_=True)
    model: VitGpt2 = build(
        run_config=OmegaConf.to_container(config, resolve=True),
        max_length=config.model.max_length or datamodule.generation_length,
    )
    datamodule.connect(model.processor)
    return model


def build_trainer(config: DictConfig, scorer: CaptionScorer | None = None) -> pl.Trainer:
    """The trainer with the callbacks and loggers of their groups; `scorer` scores captions of validation."""
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    if precision in ("16-mixed", "16-true", 16, "16") and config.trainer.accelerator == "cpu":
        raise UserError(
            f"trainer.precision={precision} on a CPU; expected bf16-mixed or 32-true; set trainer.precision=auto"
        )
    warn_of_software_bf16(precision, config.trainer.accelerator)
    callbacks = _built(config.get("callbacks"))
    for callback in callbacks:
        if isinstance(callback, CaptionSamples):
            callback.scorer = scorer
    trainer: pl.Trainer = instantiate(
        config.trainer,
        precision=precision,
        callbacks=callbacks,
        logger=_built(config.get("logger")) or False,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,  # the loaders share out the images themselves
    )
    # What a signal means is decided in src/utils/stopping.py. Lightning would note a SIGTERM and go on scoring, and
    # answers it with a collective call that hangs where one process alone was told.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    share_one_fate(trainer)
    return trainer


def _built(group: DictConfig | None) -> list[Any]:
    """Every object of a config group, in the order of its keys.

    Raises:
        UserError: a logger's package is not installed.
    """
    made = []
    for name, part in (group or {}).items():
        if not isinstance(part, DictConfig) or "_target_" not in part:
            continue
        try:
            made.append(instantiate(part))
        except Exception as error:
            missing = error.__cause__
            if isinstance(missing, ModuleNotFoundError):
                raise UserError(
                    f"{name!s} needs the package {missing.name}, which is not installed; expected it beside torch; "
                    f"pip install {missing.name}"
                ) from error
            raise
    return made


def run_dir(config: DictConfig) -> Path:
    """The folder of this run."""
    return Path(config.paths.output_dir)
