"""Rebuild a captioner from a run folder, a `.ckpt`, a saved folder or a hub id, with nothing else given.

A checkpoint may come from a stranger: plain values of known settings are taken from its config, and nothing else.
"""

import contextlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule
from transformers import GenerationConfig, VisionEncoderDecoderModel

from src.datamodule.processor import Processor
from src.models.checkpoint import METADATA_KEY, read_checkpoint
from src.models.lora import merge_adapter
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
from src.utils.hub import find_source
from src.utils.logging import get_logger
from src.utils.run_folder import checkpoint_file

if TYPE_CHECKING:
    from src.models.vit_gpt2 import VitGpt2

log = get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PROJECT = "${oc.env:PROJECT_ROOT}"  # stands for the project's folder in the demo's checkpoint
MODEL_TARGET = "src.models.vit_gpt2.VitGpt2"
DATA_TARGET = re.compile(r"(src\.datamodule\.[a-z_]+|src\.demo\.synthetic\.datamodules)\.([A-Za-z]+)")
ONLY_FOR_TRAINING = ("optimizer", "lr_scheduler")
# Settings that a checkpoint may not choose: they download or write.
FORCED = {"download": False, "cache_dir": None}
PRECISIONS = ("32", "32-true", "bf16-mixed", "bf16-true")  # fp16 stays with the GPU that it was chosen for
LENGTH, BEAMS = 32, 4  # where neither a run nor a generation config has them
MAX_BEAMS = 128


@dataclass(frozen=True)
class Restored:
    """A captioner ready for generation; adapters are merged into the weights.

    model: fp32, in eval mode, on the CPU. max_length (tokens, start included) and num_beams: as it was evaluated.
    source: the file, folder or hub id that it came from. base: hub id or folder of the base weights.
    file: the `.ckpt`, None for a saved folder or the hub. trained: base, base_sha256 and config of the `.ckpt`; empty
    without one.
    """

    model: VisionEncoderDecoderModel
    processor: Processor
    max_length: int
    num_beams: int
    source: str
    base: str
    file: Path | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path | None:
        """The folder of the run that wrote the checkpoint, None where the file was moved out of it."""
        if self.file is None:
            return None
        folder = self.file.parent.parent
        return folder if (folder / "config_resolved.yaml").is_file() else None


def open_captioner(checkpoint: str | Path, base: str | None = None) -> Restored:
    """Load a run folder (its best), a `.ckpt`, `last`, a `save_pretrained` folder or a hub id.

    base: where the base weights are now, when they are not where they were at training; their hash is checked.

    Raises:
        UserError: nothing there, damaged, not one of these, or the base is missing or another one.
    """
    file = checkpoint_file(str(checkpoint))
    try:
        if file is None:
            return _open_saved(str(checkpoint))
        content = read_checkpoint(file)
        module = _build_module(content, file, base)
    except UserError as error:  # these commands name the setting otherwise than a training run
        raise UserError(
            str(error).replace("model.checkpoint", "checkpoint").replace("ckpt_path", "checkpoint")
        ) from error
    merge_adapter(module.model)
    captioner = module.captioner
    _check_generation(
        captioner.max_length, captioner.num_beams, module.processor, f"checkpoint={str(file)!r}"
    )
    return Restored(
        module.model, module.processor, captioner.max_length, captioner.num_beams, str(file), module.base_id, file,
        content[METADATA_KEY],
    )  # fmt: skip


def restore(checkpoint: str | Path, base: str | None = None, **settings: Any) -> "VitGpt2":
    """Rebuild the module of a training run with its trained weights, in eval mode, on the CPU.

    settings: arguments of `VitGpt2` to replace those of the run, such as num_beams.

    Raises:
        UserError: no such file, or one that does not fit its base.
    """
    file = checkpoint_file(str(checkpoint))
    if file is None:
        raise UserError(
            f"checkpoint={str(checkpoint)!r} is not of a run; expected a .ckpt or a run folder; "
            "set checkpoint=<run>/checkpoints/best.ckpt"
        )
    return _build_module(read_checkpoint(file), file, base, settings)


def scoring_settings(checkpoint: str | Path, file: Path | None) -> dict[str, Any]:
    """Return the settings to score a checkpoint with: `datamodule`, `model`, `seed`, `trainer.precision`.

    file: the `.ckpt`; None for a saved folder or hub id at `checkpoint`, which has settings of the model alone.

    Raises:
        UserError: it cannot be loaded, or names something else to build.
    """
    if file is not None:
        metadata = read_checkpoint(file)[METADATA_KEY]
        settings = rebuilt_settings(metadata["config"], file)
        with contextlib.suppress(UserError):  # the command line may name another base
            model = settings.get("model", {})
            model["checkpoint"] = _find_base(metadata, model.get("checkpoint") or "", file)
        return settings
    found = open_captioner(checkpoint)
    model = {"_target_": MODEL_TARGET, "checkpoint": found.base, "max_length": found.max_length}
    return {"model": model | {"num_beams": found.num_beams, "optimizer": None, "lr_scheduler": None}}


def rebuilt_settings(config: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """Return `datamodule`, `model`, `seed` and `trainer.precision` of a checkpoint's config, safe to instantiate.

    Raises:
        UserError: the file names something else to build, or holds other values than plain ones.
    """
    settings: dict[str, Any] = {
        name: _group_settings(name, config[name], file) for name in ("model", "datamodule") if name in config
    }
    if isinstance(config.get("seed"), int):
        settings["seed"] = config["seed"]
    trainer = config.get("trainer")
    precision = str(trainer.get("precision")) if isinstance(trainer, dict) else ""
    return settings | ({"trainer": {"precision": precision}} if precision in PRECISIONS else {})


def _group_settings(name: str, group: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """Return the settings of `model` or `datamodule` that its class takes, `_target_` included.

    `_target_` calls whatever it names: it has to name our model or one of our data modules, and nothing within them is
    built. Interpolations are rejected, as they read the environment. Downloads are off.
    """
    plain = _plain({key: value for key, value in group.items() if key not in ONLY_FOR_TRAINING}, name, file)
    target = plain.pop("_target_", MODEL_TARGET if name == "model" else None)
    kind = _find_class(name, str(target))
    if kind is None:
        raise UserError(
            f"ckpt_path={str(file)!r} has {name}._target_={target}; expected "
            f"{MODEL_TARGET if name == 'model' else 'a data module of src/datamodule'}; nothing of it was built, since "
            "that could run code; use a checkpoint that train.py wrote"
        )
    known = _parameters(kind)
    for key in sorted(plain.keys() - known):
        if plain[key] is not None and name == "model":
            raise UserError(
                f"ckpt_path={str(file)!r} was made with model.{key}, which is not known here; expected a "
                "checkpoint of this release; load it with the release that wrote it"
            )
        log.debug("%s: %s.%s of the checkpoint is not known here and not used", file, name, key)
    settings = {key: value for key, value in plain.items() if key in known}
    for key in [key for key, value in settings.items() if isinstance(value, str) and "://" in value]:
        address = settings.pop(key)
        log.warning("%s: %s.%s=%s of the checkpoint is not used; set it yourself", file, name, key, address)
    return {"_target_": target} | settings | {key: value for key, value in FORCED.items() if key in settings}


def _plain(value: Any, name: str, file: str | Path) -> Any:
    """Copy settings of plain values; PROJECT becomes the project's folder.

    Raises:
        UserError: an interpolation, an object, or something to build inside of a setting.
    """
    if isinstance(value, Mapping):
        nested = sorted(key for key in value if not isinstance(key, str) or key.startswith("_"))
        if nested and (nested != ["_target_"] or "." in name):
            raise _not_plain(f"{name}.{nested[0]}", value[nested[0]], file)
        return {key: _plain(item, f"{name}.{key}", file) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}.", file) for item in value]
    if isinstance(value, str):
        value = value.replace(PROJECT, str(ROOT))
        if "${" in value or value == "???":
            raise _not_plain(name, value, file)
    elif not (value is None or isinstance(value, bool | int | float)):
        raise _not_plain(name, value, file)
    return value


def _not_plain(name: str, value: Any, file: str | Path) -> UserError:
    return UserError(
        f"ckpt_path={str(file)!r} has {name}={value}; expected a plain value, without interpolation or a class to "
        "build; nothing of it was built, since that could run code; use a checkpoint that train.py wrote"
    )


def _parameters(kind: type) -> set[str]:
    """Return the names of a class's arguments, with those of its parents where it passes `**kwargs` on."""
    names: set[str] = set()
    for parent in kind.__mro__:
        if "__init__" in vars(parent):
            parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
            names |= {parameter.name for parameter in parameters}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return names - {"self", "kwargs", "processor", "run_config"}


def _find_class(name: str, target: str) -> type | None:
    """Return our model, or the data module of src/datamodule that a `_target_` names; None for anything else."""
    if name == "model":
        from src.models.vit_gpt2 import VitGpt2

        return VitGpt2 if target == MODEL_TARGET else None
    found = DATA_TARGET.fullmatch(target)
    if found is None or importlib.util.find_spec(found[1]) is None:
        return None
    kind = getattr(importlib.import_module(found[1]), found[2], None)
    return kind if isinstance(kind, type) and issubclass(kind, LightningDataModule) else None


def _open_saved(checkpoint: str) -> Restored:
    """Load a folder of `save_pretrained` or a hub id, with the lengths and beams of its generation config.

    Raises:
        UserError: it cannot be loaded, or its generation config has values out of range.
    """
    found = load_captioner(checkpoint)
    saved: GenerationConfig = found.model.generation_config
    length = saved.max_length or min(LENGTH, found.processor.max_positions)
    beams = saved.num_beams or BEAMS
    _check_generation(length, beams, found.processor, f"checkpoint={checkpoint!r}: generation_config.json")
    return Restored(found.model, found.processor, length, beams, found.base_id, found.base_id)


def _check_generation(max_length: Any, num_beams: Any, processor: Processor, source: str) -> None:
    """Raises UserError for a length or a number of beams of another type or out of range."""
    limits = (("max_length", max_length, 2, processor.max_positions), ("num_beams", num_beams, 1, MAX_BEAMS))
    for name, value, low, high in limits:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(
                f"{source} has {name}={value!r}; expected a whole number from {low} to {high}; change it there"
            )


def _build_module(
    content: Mapping[str, Any], file: Path, base: str | None, replaced: Mapping[str, Any] | None = None
) -> "VitGpt2":
    """Join base and trained weights.

    Raises:
        UserError: the file is of another class, of another release, or does not fit the base.
    """
    from src.models.vit_gpt2 import VitGpt2

    metadata = content[METADATA_KEY]
    settings = _group_settings("model", metadata["config"].get("model") or {}, file) | dict(replaced or {})
    del settings["_target_"]
    if not settings.get("from_encoder_decoder"):
        settings["checkpoint"] = base or _find_base(metadata, settings.get("checkpoint") or "", file)
    if not settings.get("max_length"):  # the data's, as in the run
        settings["max_length"] = (metadata["config"].get("datamodule") or {}).get("generation_length")
    module = VitGpt2(**settings)
    checkpoint = dict(content)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    return module.eval()


def _find_base(metadata: Mapping[str, Any], checkpoint: str, file: Path) -> str:
    """Find the base weights where they were or, when the whole project was moved, inside this project.

    Raises:
        UserError: they were in a folder that does not exist any more.
    """
    recorded = metadata["base"].replace(PROJECT, str(ROOT))
    for folder in [Path(one) for one in (recorded, checkpoint) if Path(one).is_absolute()]:
        inside = [ROOT.joinpath(*folder.parts[start:]) for start in range(1, len(folder.parts))]
        for candidate in (folder, *inside):
            if (candidate / "config.json").is_file():
                return str(candidate)
    try:
        return find_source("checkpoint", checkpoint)
    except UserError as error:
        raise UserError(
            f"checkpoint={str(file)!r} was trained on {checkpoint}, which does not exist; expected its base weights "
            f"(sha256 {metadata['base_sha256'][:12]}); set base=<the folder where they are now, or a hub id>"
        ) from error
