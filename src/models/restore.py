"""From a run folder, a `.ckpt`, a saved folder or a hub id back to a captioner, with nothing else given."""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningDataModule
from transformers import VisionEncoderDecoderModel

from src.datamodule.processor import Processor
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
from src.utils.hub import find_source
from src.utils.run_folder import checkpoint_file

if TYPE_CHECKING:
    from src.models.vit_gpt2 import VitGpt2

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "${oc.env:PROJECT_ROOT}"  # what a config that was made movable calls the project's folder
OURS = "src.models.vit_gpt2.VitGpt2"
ONLY_FOR_TRAINING = ("_target_", "optimizer", "lr_scheduler")
LENGTH, BEAMS = 32, 4  # where neither a run nor a generation config says


@dataclass(frozen=True)
class Restored:
    """A captioner that is ready to be asked; adapters are merged into the weights.

    model: fp32, in eval mode, on the CPU. max_length (tokens, start included) and num_beams: how it was to be
    asked. source: the file, folder or hub id that it came from. base: hub id or folder of the base weights.
    file: the `.ckpt`, None for a saved folder or the hub. trained: what the `.ckpt` holds of the run: base,
    base_sha256, config; empty without one.
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
    """Whatever `checkpoint` is: run folder (its best), `.ckpt`, `last`, `save_pretrained` folder or hub id.

    base: where the base weights are now, when they are not where they were at training; their hash is checked.

    Raises:
        UserError: nothing there, damaged, not one of these, or the base is missing or another one.
    """
    from src.models.checkpoint import METADATA_KEY, read_checkpoint
    from src.models.lora import merge_adapter

    file = checkpoint_file(str(checkpoint))
    try:
        if file is None:
            return _open_saved(str(checkpoint))
        content = read_checkpoint(file)
        module = _module(content, file, base)
    except UserError as error:  # the settings of a training run are not the words of these commands
        raise UserError(
            str(error).replace("model.checkpoint", "checkpoint").replace("ckpt_path", "checkpoint")
        ) from error
    merge_adapter(module.model)
    config = content[METADATA_KEY]["config"]
    length = module.max_length or (config.get("datamodule") or {}).get("generation_length") or LENGTH
    return Restored(
        module.model, module.preprocessing, length, module.num_beams, str(file), module.base_id, file, content[METADATA_KEY]
    )  # fmt: skip


def restore(checkpoint: str | Path, base: str | None = None) -> "VitGpt2":
    """The module of a training run with its trained weights, in eval mode, on the CPU.

    Raises:
        UserError: no such file, or one that does not fit its base.
    """
    from src.models.checkpoint import read_checkpoint

    file = checkpoint_file(str(checkpoint))
    if file is None:
        raise UserError(
            f"checkpoint={str(checkpoint)!r} is not of a run; expected a .ckpt or a run folder; "
            "set checkpoint=<run>/checkpoints/best.ckpt"
        )
    return _module(read_checkpoint(file), file, base)


def _open_saved(checkpoint: str) -> Restored:
    """A folder of `save_pretrained` or a hub id, asked as its generation config says."""
    found = load_captioner(checkpoint)
    how = found.model.generation_config
    return Restored(
        found.model, found.processor, how.max_length or LENGTH, how.num_beams or BEAMS, found.base_id, found.base_id
    )  # fmt: skip


def _module(content: Mapping[str, Any], file: Path, base: str | None) -> "VitGpt2":
    """Base and trained weights together.

    The settings come out of the file as plain values and go to one known class: a file from a stranger cannot
    name another one and so run its code.
    """
    from src.models.checkpoint import METADATA_KEY
    from src.models.vit_gpt2 import VitGpt2

    settings = _movable(dict(content[METADATA_KEY]["config"].get("model") or {}))
    if settings.get("_target_", OURS) != OURS:
        raise UserError(
            f"checkpoint={str(file)!r} is of a {settings['_target_']}; expected {OURS}; load it with the code "
            "that wrote it"
        )
    settings = {key: value for key, value in settings.items() if key not in ONLY_FOR_TRAINING}
    unknown = settings.keys() - inspect.signature(VitGpt2).parameters.keys()
    if unknown:
        raise UserError(
            f"checkpoint={str(file)!r} was made with model.{min(unknown)}, which is not known here; expected a "
            "checkpoint of this release; load it with the release that wrote it"
        )
    if not settings.get("from_encoder_decoder"):
        settings["checkpoint"] = base or _find_base(
            content[METADATA_KEY], settings.get("checkpoint") or "", file
        )
    module = VitGpt2(**settings)
    checkpoint = dict(content)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    return module.eval()


def rebuilt_settings(config: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """`datamodule`, `model` and `seed` of the run that wrote a checkpoint, fit to be built by Hydra for scoring.

    `_target_` calls whatever it names, and the file may come from a stranger: it has to name our model and one of
    our data modules, and nothing within them is built.

    Raises:
        UserError: the file wants something else to be built.
    """
    parts = {name: config[name] for name in ("datamodule", "model", "seed") if name in config}
    if "model" in parts:
        parts["model"] = {
            key: value for key, value in parts["model"].items() if key not in ("optimizer", "lr_scheduler")
        }
    for name, allowed, expected in (
        ("model", _is_our_model, OURS),
        ("datamodule", _is_our_data, "a data module of src/datamodule"),
    ):
        targets = list(_targets(parts.get(name) or {}))
        if name in parts and not (len(targets) == 1 and allowed(str(dict(parts[name]).get("_target_")))):
            raise UserError(
                f"ckpt_path={str(file)!r} wants {name} to be {targets}; expected {expected}; nothing of it was "
                "built, since that could run code; use a checkpoint that train.py wrote"
            )
    return parts


def _targets(value: Any) -> Iterator[Any]:
    """Every `_target_` in settings, however deep."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "_target_":
                yield item
            else:
                yield from _targets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _targets(item)


def _is_our_model(target: str) -> bool:
    return target == OURS


def _is_our_data(target: str) -> bool:
    """Whether it is a data module that a file of src/datamodule has at its top."""
    found = re.fullmatch(r"(src\.datamodule\.[a-z_]+|src\.demo\.synthetic\.datamodules)\.([A-Za-z]+)", target)
    if found is None or not (ROOT / f"{found[1].replace('.', '/')}.py").is_file():
        return False
    kind = getattr(importlib.import_module(found[1]), found[2], None)
    return isinstance(kind, type) and issubclass(kind, LightningDataModule)


def _find_base(trained: Mapping[str, Any], checkpoint: str, file: Path) -> str:
    """The base weights, where they were or, when the whole project was moved, where they must be now.

    Raises:
        UserError: they were in a folder that is gone.
    """
    then = str((trained["config"].get("paths") or {}).get("root_dir") or ROOT)
    recorded = _movable(trained["base"])
    candidates = [recorded] if Path(recorded).is_absolute() else []
    candidates.append(checkpoint)
    candidates += [
        str(ROOT / Path(one).relative_to(then)) for one in candidates if Path(one).is_relative_to(then)
    ]
    for candidate in candidates:
        if Path(candidate).is_dir():
            return candidate
    try:
        return find_source("checkpoint", checkpoint)
    except UserError as error:
        raise UserError(
            f"checkpoint={str(file)!r} was trained on {checkpoint}, which is gone; expected its base weights "
            f"(sha256 {trained['base_sha256'][:12]}); set base=<the folder where they are now, or a hub id>"
        ) from error


def _movable(value: Any) -> Any:
    """`value` with the project's folder in the place of its name."""
    if isinstance(value, Mapping):
        return {key: _movable(item) for key, item in value.items()}
    return value.replace(PROJECT, str(ROOT)) if isinstance(value, str) else value
