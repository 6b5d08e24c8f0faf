"""Rebuild a captioner from a run folder, a `.ckpt`, a saved folder or a hub id, with nothing else given.

A checkpoint may come from a stranger: plain values of known settings are taken from its config, and nothing else.
"""

import contextlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from transformers import VisionEncoderDecoderModel

from src.datamodule.processor import Processor
from src.models.caption_model import CaptionModel
from src.models.checkpoint import METADATA_KEY, read_checkpoint
from src.models.freezing import merge_adapter
from src.models.generation import resolve_generation
from src.models.pretrained import load_captioner
from src.utils.config_check import GENERATION
from src.utils.errors import UserError
from src.utils.hub import find_source
from src.utils.logging import get_logger
from src.utils.run_folder import checkpoint_file

log = get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PROJECT = "${oc.env:PROJECT_ROOT}"  # stands for the project's folder in the demo's checkpoint
MODEL_TARGET = "src.models.vit_gpt2.VitGpt2"
TARGETS = {  # what a checkpoint's config may build
    "model": re.escape(MODEL_TARGET),
    "datamodule": r"src\.(datamodule\.[a-z_]+|demo\.synthetic\.datamodules)\.[A-Za-z]+DataModule",
}
FOR_TRAINING = {"optimizer", "lr_scheduler", "objective", "scst"}
NOT_RESTORED = {"kwargs", "settings", "processor", "network", "new_weights", "reward", "run_config", "_target_"}
NOT_RESTORED |= FOR_TRAINING
FORCED = {"download": False, "cache_dir": None}  # a checkpoint may neither download nor write
PRECISIONS = ("32", "32-true", "bf16-mixed", "bf16-true")  # fp16 stays with the GPU that it was chosen for


@dataclass(frozen=True)
class Restored:
    """A captioner in fp32 and eval mode on the CPU; adapters are merged into the weights."""

    model: VisionEncoderDecoderModel
    processor: Processor
    generation: Mapping[str, Any]  # the settings that it was evaluated with
    source: str  # the file, folder or hub id that it came from
    base: str  # hub id or folder of the base weights
    file: Path | None = None  # the `.ckpt`; None for a saved folder or the hub
    trained: Mapping[str, Any] = field(default_factory=dict)  # base_sha256 and config of the `.ckpt`

    @property
    def run_dir(self) -> Path | None:
        """The folder of the run that wrote the checkpoint, None where the file was moved out of it."""
        folder = self.file.parent.parent if self.file else None
        return folder if folder and (folder / "config_resolved.yaml").is_file() else None


def open_captioner(checkpoint: str | Path, base: str = "", log_dir: str | Path = "") -> Restored:
    """Load a run folder (its best), a `.ckpt`, `last`, a saved folder or a hub id; UserError where it is none of them.

    base: where the base weights are now, if they were moved; their hash is checked. log_dir: where `last` looks.
    """
    file = checkpoint_file(str(checkpoint), log_dir)
    try:
        if file is None:
            model, processor, source, _ = load_captioner(str(checkpoint))
            saved = {name: getattr(model.generation_config, name, None) for name in GENERATION}
            where = f"checkpoint={source!r} has in its generation config "
            return Restored(model, processor, resolve_generation(saved, processor, where), source, source)
        content = read_checkpoint(file)
        own = CaptionModel.from_base(**_model_settings(content, file, base))
        own.load_state_dict(own.match_checkpoint(content), strict=False)
        merge_adapter(own.eval().network)
        trained = {"base_sha256": own.base_sha256, "config": content[METADATA_KEY]["config"]}
        return Restored(own.network, own.processor, own.generation, str(file), own.base_id, file, trained)
    except UserError as error:  # these commands name the setting otherwise than a training run
        text = str(error).replace("model.checkpoint", "checkpoint").replace("ckpt_path", "checkpoint")
        raise UserError(text) from error


def _model_settings(content: Mapping[str, Any], file: Path, base: str) -> dict[str, Any]:
    config = content[METADATA_KEY]["config"]
    model = _group_settings("model", config.get("model") or {}, file)
    generation = dict(model.get("generation") or {})
    if not generation.get("max_length"):  # the data's, as in the run
        generation["max_length"] = (config.get("datamodule") or {}).get("generation_length")
    if not model.get("from_encoder_decoder"):
        model["checkpoint"] = base or _find_base(content, model, file)
    model["generation"] = generation
    return {name: value for name, value in model.items() if name not in ("_target_", "encoder_lr_factor")}


def scoring_settings(checkpoint: str | Path, file: Path | None) -> dict[str, Any]:
    """Return settings to score with: of a saved folder or hub id (file=None) the model's, else those of the `.ckpt`."""
    if file is None:
        found = open_captioner(checkpoint)
        model = {"_target_": MODEL_TARGET, "checkpoint": found.base, "generation": found.generation}
        return {"model": model | {"optimizer": None, "lr_scheduler": None}}
    content = read_checkpoint(file)
    settings = rebuilt_settings(content[METADATA_KEY]["config"], file)
    with contextlib.suppress(UserError):  # the command line may name another base
        model = settings.get("model", {})
        model["checkpoint"] = _find_base(content, model, file)
    return settings


def rebuilt_settings(config: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """Return a config's model, datamodule, seed and precision, safe to instantiate; UserError on anything else."""
    groups = [group for group in TARGETS if group in config]
    settings: dict[str, Any] = {group: _group_settings(group, config[group], file) for group in groups}
    if isinstance(config.get("seed"), int):
        settings["seed"] = config["seed"]
    trainer = config.get("trainer")
    if isinstance(trainer, dict) and str(trainer.get("precision")) in PRECISIONS:
        settings["trainer"] = {"precision": str(trainer["precision"])}
    return settings


def _group_settings(group: str, config: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    target = config.get("_target_", MODEL_TARGET if group == "model" else None)
    known: set[str] = set()
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        if re.fullmatch(TARGETS[group], str(target)):
            # A model's settings are found without Lightning, which takes seconds to import.
            kinds: Any = [CaptionModel, CaptionModel.from_base] if group == "model" else resolve_name(target).__mro__
            own = [kind for kind in kinds if kind.__module__.startswith("src.")]
            known = {name for kind in own for name in inspect.signature(kind).parameters}
    if not known:
        raise _foreign(file, f"{group}._target_", target, f"a {group} class of this project")
    known |= {"encoder_lr_factor"} if group == "model" else set()
    settings: dict[str, Any] = {"_target_": target}
    for key in [key for key in config if key not in NOT_RESTORED]:
        value = FORCED.get(key, _plain(config[key], f"{group}.{key}", file))
        if key in known and not (isinstance(value, str) and "://" in value):
            settings[key] = value
        elif key in known:
            log.warning("%s: %s.%s=%s is not used; set it yourself", file, group, key, value)
        elif group == "model" and value is not None:
            raise UserError(
                f"ckpt_path={str(file)!r} was made with model.{key}, which is not known here; expected a "
                "checkpoint of this release; load it with the release that wrote it"
            )
    return settings


def _plain(value: Any, name: str, file: str | Path) -> Any:
    if isinstance(value, Mapping) and all(isinstance(key, str) and key[:1] != "_" for key in value):
        return {key: _plain(item, f"{name}.{key}", file) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name, file) for item in value]
    value = value.replace(PROJECT, str(ROOT)) if isinstance(value, str) else value
    if not isinstance(value, str | bool | int | float | None) or "${" in str(value) or value == "???":
        raise _foreign(file, name, value, "a plain value, without interpolation or a class to build")
    return value


def _foreign(file: str | Path, name: str, value: Any, expected: str) -> UserError:
    return UserError(
        f"ckpt_path={str(file)!r} has {name}={value}; expected {expected}; nothing of it was built, since that could "
        "run code; use a checkpoint that train.py wrote"
    )


def _find_base(content: Mapping[str, Any], model: Mapping[str, Any], file: Path) -> str:
    """Find the base where it was or, when the whole project was moved, inside this project."""
    metadata, checkpoint = content[METADATA_KEY], model.get("checkpoint") or ""
    for folder in (Path(metadata["base"].replace(PROJECT, str(ROOT))), Path(checkpoint)):
        inside = [ROOT.joinpath(*folder.parts[start:]) for start in range(1, len(folder.parts))]
        for candidate in (folder, *inside) if folder.is_absolute() else ():
            if (candidate / "config.json").is_file():
                return str(candidate)
    try:
        return find_source("checkpoint", checkpoint)
    except UserError as error:
        raise UserError(
            f"checkpoint={str(file)!r} was trained on {checkpoint}, which does not exist; expected its base weights "
            f"(sha256 {metadata['base_sha256'][:12]}); set base=<the folder where they are now, or a hub id>"
        ) from error
