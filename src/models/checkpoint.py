"""Checkpoint files: trained weights under hub names, base hash, checked reading without code."""

import contextlib
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor
from transformers import PreTrainedModel

from src.utils.errors import UserError, causes
from src.utils.files import atomic_write

FORMAT = 1
CACHED_BYTES = 100e6  # smaller weights are hashed in no time
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # on the hub
METADATA_KEY = "captioner"  # holds format and these:
METADATA_TYPES = {"base": str, "base_sha256": str, "config": dict}


def hub_parameter_names(model: PreTrainedModel) -> dict[str, str]:
    """Map module names to the names in `save_pretrained`'s files, which stay when transformers renames a module."""
    from transformers.core_model_loading import revert_weight_conversion

    weights = model.state_dict()
    names = {id(weight): name for name, weight in weights.items()}
    public = revert_weight_conversion(model, weights)
    found = {names[id(weight)]: name for name, weight in public.items() if id(weight) in names}
    return {name: found.get(name, name) for name in weights}


def weight_digests(model: PreTrainedModel, names: Mapping[str, str], source: str = "") -> dict[str, str]:
    """Return the SHA-256 of every weight by its hub name.

    Those of a large `source` (folder or hub id) are kept in the user's cache folder as long as path, size, time and
    inode of its files stay what they are: hashing takes seconds.
    """
    stats = {str(path): path.stat() for path in (_weight_files(source) if source else ())}
    found = [(path, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()]
    if sum(stat.st_size for stat in stats.values()) < CACHED_BYTES:
        return _hash_weights(model, names)
    shapes = [(names[name], [*weight.shape]) for name, weight in model.named_parameters()]
    key = hashlib.sha256(repr([found, shapes]).encode()).hexdigest()[:32]
    cached = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "captioner" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError):
        digests: dict[str, str] = json.loads(cached.read_text())
        return digests
    digests = _hash_weights(model, names)
    with contextlib.suppress(OSError), atomic_write(cached) as file:
        json.dump(digests, file)
    return digests


def _weight_files(source: str) -> list[Path]:
    if Path(source).is_dir():
        return sorted(path for path in Path(source).iterdir() if path.suffix in (".safetensors", ".bin"))
    name, _, revision = source.partition("@")
    files = (try_to_load_from_cache(name, file, revision=revision or None) for file in WEIGHT_FILES)
    return [Path(file) for file in files if isinstance(file, str)]


def _hash_weights(model: PreTrainedModel, names: Mapping[str, str]) -> dict[str, str]:
    digests = {}
    for name, weight in model.named_parameters():
        data = weight.detach().cpu().contiguous().view(torch.uint8).numpy().data
        digests[names[name]] = hashlib.sha256(data).hexdigest()
    return digests


def combine_digests(digests: Mapping[str, str], names: Iterable[str]) -> str:
    """Return one SHA-256 over weights in the order of their names."""
    text = "".join(f"{name}={digests[name]}\n" for name in sorted(names))
    return hashlib.sha256(text.encode()).hexdigest()


def match_weights(
    checkpoint: Mapping[str, Any], base_sha256: str, names: Mapping[str, str], trained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a checkpoint's weights by module names; UserError on another base, or where others train here.

    names: hub names by module names. trained: the weights that train, by module name.
    """
    metadata, saved = checkpoint[METADATA_KEY], checkpoint["state_dict"]
    if metadata["base_sha256"] != base_sha256:
        raise UserError(
            f"the checkpoint was trained on {metadata['base']} ({metadata['base_sha256'][:12]}) and the model on "
            f"another one ({base_sha256[:12]}); expected the same base weights; set model.checkpoint={metadata['base']}"
        )
    expected = {names[name]: name for name in trained}
    here = {names[name]: weight.shape for name, weight in trained.items()}
    differing = sorted(n for n, _ in here.items() ^ {n: weight.shape for n, weight in saved.items()}.items())
    if differing:
        raise UserError(
            f"the checkpoint holds {len(saved)} weights and {len(expected)} train here (first difference: "
            f"{differing[0]}); expected the run's own model.train and model.num_layers_to_train; set them"
        )
    return {expected[name]: weight for name, weight in saved.items()}


def find_os_error(error: BaseException) -> OSError | None:
    """Find the disk's error below torch's: its writer raises one of its own when a write fails."""
    return next((one for one in causes(error, implicit=True) if isinstance(one, OSError)), None)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values; its sizes and checksums are compared first, and no code runs.

    Raises UserError for a missing or damaged file, code, weights that are not finite and what is no checkpoint.
    """
    path, found = Path(path), f"ckpt_path={str(path)!r}"
    if not path.is_file():
        raise UserError(f"{found} does not exist; expected a .ckpt file; set ckpt_path=<run>/checkpoints/best.ckpt")
    problem, checkpoint = "", dict[str, Any]()
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
            if unpacked > size:
                problem = f"is a file of {size / 1e6:,.0f} MB that unpacks to {unpacked / 1e6:,.0f} MB"
            elif changed := archive.testzip():
                problem = f"is damaged (the checksum of {changed} differs)"
        if not problem:
            checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except pickle.UnpicklingError:
        problem = "holds more than tensors and plain values, or none; loading could run code from it"
    except Exception as error:  # zipfile and torch raise nearly anything on a damaged file
        problem = f"is damaged ({str(error).splitlines()[0][:100] if str(error) else type(error).__name__})"
    if problem:
        raise UserError(
            f"{found} {problem}; expected a whole file as train.py writes it; it was not loaded: use another one of "
            "its folder, copy it again or train again"
        )
    metadata = checkpoint.get(METADATA_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(metadata, dict) or "format" not in metadata:
        raise UserError(
            f"{found} is not a checkpoint of this project; expected a file written by train.py; "
            "a save_pretrained folder goes into model.checkpoint=..."
        )
    weights: Any = checkpoint.get("state_dict")
    valid = isinstance(weights, dict) and all(isinstance(weight, Tensor) for weight in weights.values())
    wrong = [name for name, kind in METADATA_TYPES.items() if not isinstance(metadata.get(name), kind)]
    wrong += [] if valid else ["weights"]
    if metadata["format"] != FORMAT or wrong:
        reason = f"has format {metadata['format']}" if metadata["format"] != FORMAT else f"lacks {wrong[0]}"
        raise UserError(f"{found} {reason}; expected format {FORMAT}; load it with the release that wrote it")
    check_finite(weights.items(), found)
    return checkpoint


def check_finite(weights: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Refuse weights that hold an infinite number or a NaN, as captions would be empty; source: for the message."""
    for name, weight in weights:
        if weight.is_floating_point() and weight.numel():
            low, high = weight.detach().aminmax()  # one pass, no copy; a NaN anywhere makes both NaN
            if not (low.isfinite() and high.isfinite()):
                what = f"{source}: its weights are not finite ({name})"
                raise UserError(f"{what}; expected a model whose training did not diverge; use another checkpoint")
