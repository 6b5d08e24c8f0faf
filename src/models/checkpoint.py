"""Checkpoint files: the trained weights by their public names, whole or not there, and never a pickle."""

import hashlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from transformers import PreTrainedModel

from src.utils.errors import UserError
from src.utils.files import atomic_write

FORMAT = 1
METADATA_KEY = "captioner"  # where a checkpoint holds what is ours: format, base, config


def hub_parameter_names(model: PreTrainedModel) -> dict[str, str]:
    """Module name -> the name in `save_pretrained`'s files, which outlives a rename inside transformers."""
    from transformers.core_model_loading import revert_weight_conversion

    weights = model.state_dict()
    names = {id(weight): name for name, weight in weights.items()}
    public = revert_weight_conversion(model, weights)
    found = {names[id(weight)]: name for name, weight in public.items() if id(weight) in names}
    return {name: found.get(name, name) for name in weights}


def weight_digests(model: PreTrainedModel, names: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of every weight by its public name."""
    return {
        names[name]: hashlib.sha256(
            weight.detach().cpu().contiguous().view(torch.uint8).numpy().data
        ).hexdigest()
        for name, weight in model.named_parameters()
    }


def combine_digests(digests: Mapping[str, str], names: Iterable[str] | None = None) -> str:
    """One SHA-256 over weights in the order of their names."""
    chosen = sorted(digests if names is None else names)
    return hashlib.sha256("".join(f"{name}={digests[name]}\n" for name in chosen).encode()).hexdigest()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside and renamed, read without running code from them."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write to a temporary file, then rename.

        Raises:
            UserError: the disk is full or the folder cannot be written; an earlier file stays as it was.
        """
        try:
            with atomic_write(path, "wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            fault = _of_the_disk(error)
            if fault is None:
                raise
            reason = fault.strerror or fault
            raise UserError(
                f"{path} cannot be written ({reason}); expected room for it; an earlier file of that name is "
                f"intact: free some space and go on with ckpt_path={path}"
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(path, map_location)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """The disk's error behind an error: torch's writer, left in the middle of a file, puts one of its own on top."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's content: tensors and plain values; anything else in it is refused, not run.

    Raises:
        UserError: no such file, damaged, holds code, or is not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"ckpt_path={str(path)!r} does not exist; expected a .ckpt file; set ckpt_path=<run>/checkpoints/best.ckpt"
        )
    try:
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"ckpt_path={str(path)!r} holds more than tensors and plain values, or none; expected a checkpoint "
            "written by train.py; it was not loaded, since loading could run code from it"
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise UserError(
            f"ckpt_path={str(path)!r} is damaged ({type(error).__name__}); expected a whole checkpoint; "
            "use another one of the run, such as last.ckpt"
        ) from error
    if not isinstance(checkpoint, dict) or METADATA_KEY not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(
            f"ckpt_path={str(path)!r} is not a checkpoint of this project; expected a file written by train.py; "
            "a save_pretrained folder goes into model.checkpoint=..."
        )
    if checkpoint[METADATA_KEY].get("format") != FORMAT:
        raise UserError(
            f"ckpt_path={str(path)!r} has layout {checkpoint[METADATA_KEY].get('format')}; expected {FORMAT}; "
            "load it with the release that wrote it"
        )
    return checkpoint


def check_base(content: Mapping[str, Any], base_id: str, base_sha256: str) -> None:
    """Refuse a checkpoint that was trained on other base weights.

    Raises:
        UserError: the hashes differ.
    """
    if content["base_sha256"] != base_sha256:
        raise UserError(
            f"the checkpoint was trained on {content['base']} ({content['base_sha256'][:12]}) and the model is "
            f"{base_id} ({base_sha256[:12]}); expected the same base weights; set model.checkpoint={content['base']}"
        )


def match_names(
    saved: Mapping[str, Tensor], names: Mapping[str, str], trained: Iterable[str]
) -> dict[str, Tensor]:
    """Weights by public name -> by module name.

    Raises:
        UserError: the file holds other weights than those that train here.
    """
    wanted = {names[name]: name for name in trained}
    unlike = sorted(set(wanted) ^ set(saved))
    if unlike:
        raise UserError(
            f"the checkpoint holds {len(saved)} weights and {len(wanted)} train here (first difference: {unlike[0]}); "
            "expected the same model.train and model.num_layers_to_train as in the run that wrote it"
        )
    return {wanted[name]: weight for name, weight in saved.items()}
