"""Give a captioner away: python -m src.export checkpoint=<run, .ckpt, saved folder or hub id> out=<folder>

checkpoint=      a run folder (its best), a .ckpt, `last`, a saved folder or a hub id
out=             the folder to make: weights, tokenizer, image processor, generation config, model card
dtype=float32    of the written weights: float32, float16, bfloat16
onnx=false       also write out/onnx and check it against torch token by token (the extra `onnx`)
push_to_hub=     also upload the folder to this id of the hub; log in first with `hf auth login`
private=true     make that repository private
base=            where the base weights are now, when they were moved since training
log_dir=         where `last` looks for the newest run; the project's logs/ when not given

Base and trained blocks (or adapters) become one model, which plain transformers loads and asks.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from src.utils.command import parse_command, run_command
from src.utils.errors import UserError
from src.utils.run_folder import checkpoint_file

if TYPE_CHECKING:
    from src.models.restore import Restored

DTYPES = ("float32", "float16", "bfloat16")
DEFAULTS = {
    "checkpoint": None, "out": None, "dtype": "float32", "onnx": False, "push_to_hub": "", "private": True, "base": "",
    "log_dir": "",
}  # fmt: skip


def export(
    checkpoint: str | Path,
    out: str | Path,
    dtype: str = "float32",
    onnx: bool = False,
    push_to_hub: str = "",
    private: bool = True,
    base: str = "",
) -> Path:
    """Write the captioner in `save_pretrained`'s layout, with a model card; the folder appears when it is whole.

    The arguments are told at the top of this file.

    Raises:
        UserError: nothing at `checkpoint`, something at `out`, an unknown dtype, a package missing, ONNX that does
            not say what torch says, or an upload that failed (the folder stays).
    """
    from src.models.restore import open_captioner

    out = Path(out)
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}; set dtype=float32")
    if onnx:
        from src.models.onnx_export import check_packages

        check_packages()
    with _new_folder(out) as folder:
        found = open_captioner(checkpoint, base or None)
        write_saved(found, folder, dtype)
        if onnx:
            from src.models.onnx_export import write_onnx

            print(write_onnx(found.model, found.processor, folder / "onnx", found.max_length))
    if push_to_hub:
        upload(out, push_to_hub, private)
    return out


def write_saved(found: "Restored", folder: Path, dtype: str) -> None:
    """Model, tokenizer, image processor, generation config and card into an existing folder."""
    import torch
    from transformers import GenerationConfig

    from src.models.pretrained import load_image_processor
    from src.report.model_card import model_card
    from src.utils.hub import silence_transformers

    ids = found.processor
    found.model.generation_config = GenerationConfig(
        max_length=found.max_length,
        num_beams=found.num_beams,
        do_sample=False,
        decoder_start_token_id=ids.start_id,
        eos_token_id=ids.eos_id,
        pad_token_id=ids.pad_id,
    )
    card = model_card(found, dtype)
    with silence_transformers():
        found.model.to(getattr(torch, dtype)).save_pretrained(folder)
    found.model.float()
    ids.tokenizer.save_pretrained(folder)
    load_image_processor(found.base).save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def check_new(out: Path) -> None:
    """Raises UserError where there is something at `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"out={str(out)!r} is there and not empty; expected a new folder; set out=<another folder>"
        )


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends without an error.

    Raises:
        UserError: there is something at `out`, or it cannot be written.
    """
    check_new(out)
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        yield folder
        folder.chmod(0o755)
        usual = (folder / "config.json").stat().st_mode
        for file in folder.glob("*.safetensors"):  # written for their owner alone
            file.chmod(usual)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except OSError as error:
        raise UserError(
            f"out={str(out)!r} cannot be written ({error.strerror or error}); expected room for it; "
            "free some space or set out=<another folder>"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def upload(folder: Path, repo: str, private: bool = True) -> str:
    """Make the repository on the hub if there is none and upload the folder to it; its address.

    Raises:
        UserError: no connection, not logged in, or not allowed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a captioner"))
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"push_to_hub={repo!r} failed ({reason}); expected a connection and the right to write there; "
            f"{folder} is whole: run `hf auth login`, then `hf upload {repo} {folder}`"
        ) from error


def main(arguments: Sequence[str]) -> None:
    """Read `key=value` arguments and export.

    Raises:
        UserError: as `export`, or an argument that is not known.
    """
    settings = parse_command(arguments, DEFAULTS)
    check_new(Path(settings["out"]))  # before what takes seconds to import
    file = checkpoint_file(settings["checkpoint"], settings.pop("log_dir"))
    settings["checkpoint"] = str(file or settings["checkpoint"])
    folder = export(**settings)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    print(f"{folder}: {size:.1f} MB; VisionEncoderDecoderModel.from_pretrained({str(folder)!r}) loads it")


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
