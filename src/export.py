"""Export a captioner: python -m src.export out=<folder> [checkpoint=<run, .ckpt, saved folder or hub id>]

checkpoint=      a run folder (its best), a .ckpt, a saved folder or a hub id; the newest run when not given
out=             the folder to create: weights, tokenizer, image processor, generation config, model card
dtype=float32    of the written weights: float32, float16, bfloat16 (ONNX graphs are always float32)
onnx=false       also write out/onnx and check it against torch token by token (the extra `onnx`)
push_to_hub=     also upload the folder to this id of the hub, privately; log in first with `hf auth login`
base=            where the base weights are now, when they were moved since training
log_dir=         where the newest run is looked for; the project's logs/ when not given

Base and trained blocks (or adapters) become one model, which plain transformers (4.46 or later) loads.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.utils.entry import heavy_imports, parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import scratch_folder

if TYPE_CHECKING:
    from src.models.restore import Restored

DTYPES = ("float32", "float16", "bfloat16")
DEFAULTS = {
    "checkpoint": "last", "out": None, "dtype": "float32", "onnx": False, "push_to_hub": "", "base": "", "log_dir": "",
}  # fmt: skip
PREFIX = ".captioner-export-"  # of the folder that an export is writing


def main(arguments: Sequence[str]) -> None:
    """Parse `key=value` arguments and export; UserErrors as `export`."""
    folder = export(**parse_command(arguments, DEFAULTS))
    print(f"{folder}: VisionEncoderDecoderModel.from_pretrained({str(folder)!r}) loads it")


def export(
    checkpoint: str | Path,
    out: str | Path,
    dtype: str = "float32",
    onnx: bool = False,
    push_to_hub: str = "",
    base: str = "",
    log_dir: str = "",
) -> Path:
    """Write the captioner in `save_pretrained`'s layout, with a model card; the folder appears when it is whole.

    The arguments are described at the top of this file.
    UserError: nothing at `checkpoint`, something at `out`, no room, an unknown dtype or one too narrow for the weights,
    a package missing, ONNX graphs that differ from torch, or an upload that failed.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={str(out)!r} exists and is not empty; expected a new folder; set out=<another>")
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}; set dtype=float32")
    from safetensors import SafetensorError

    with heavy_imports():
        from src.models.restore import open_captioner

    if onnx:
        try:
            from src.models.onnx_export import write_onnx
        except ImportError as error:
            raise UserError(f"onnx=true: {error}; expected the extra onnx; poetry install --extras onnx") from error
    found = open_captioner(checkpoint, base, log_dir)
    try:
        with scratch_folder(out.parent, PREFIX) as scratch:
            folder = scratch / "captioner"
            folder.mkdir()
            if onnx:  # before the weights are rounded
                print(write_onnx(found.model, found.processor, folder / "onnx", found.generation))
            _write_saved(found, folder, dtype)
            if out.exists():
                out.rmdir()  # it is empty
            folder.rename(out)
    except (OSError, SafetensorError) as error:
        reason = f"out={str(out)!r} cannot be written ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{reason}; expected room for it; free some space or set out=<another folder>") from error
    if push_to_hub:
        _upload(out, push_to_hub)
    return out


def _write_saved(found: "Restored", folder: Path, dtype: str) -> None:
    import torch

    from src.models.checkpoint import check_finite
    from src.models.generation import generation_config
    from src.models.pretrained import load_image_processor
    from src.report.model_card import model_card
    from src.utils.hub import silence_transformers

    card = folder / "README.md"
    card.write_text(model_card(found, dtype), encoding="utf-8")
    found.model.generation_config = generation_config(found.processor, found.generation)
    found.model.to(getattr(torch, dtype))
    check_finite(found.model.named_parameters(), f"dtype={dtype}")
    with silence_transformers():
        found.model.save_pretrained(folder)
    found.processor.tokenizer.save_pretrained(folder)
    _make_tokenizer_portable(folder)
    image_size = found.trained.get("config", {}).get("model", {}).get("image_size")
    load_image_processor(found.base, image_size).save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # written for their owner alone
        file.chmod(card.stat().st_mode)


def _make_tokenizer_portable(folder: Path) -> None:
    """Name a tokenizer class that transformers 4 and 5 both have; transformers 5 writes one of its own."""
    path = folder / "tokenizer_config.json"
    if not (folder / "tokenizer.json").is_file():
        return
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only"):
        config.pop(name, None)
    if isinstance(config.get("extra_special_tokens"), list):  # transformers 4 reads a mapping there
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _upload(folder: Path, repo: str) -> None:
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a captioner")
    except Exception as error:  # of the hub, of its client or of the connection
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = f"{folder} is whole: run `hf auth login`, then `hf upload {repo} {folder}`"
        raise UserError(f"push_to_hub={repo!r} failed ({reason}); expected the right to write; {remedy}") from error


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
