"""Give a captioner away: base and trained blocks merged into a folder that plain transformers loads.

python -m src.export checkpoint=<run folder or .ckpt> out=<folder> [dtype=float16]
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from src.utils.errors import UserError

DTYPES = ("float32", "float16", "bfloat16")


def export(checkpoint: str | Path, out: str | Path, dtype: str = "float32") -> Path:
    """Write model, tokenizer, image processor and generation config in `save_pretrained`'s layout.

    Args:
        checkpoint: a `.ckpt` or a run folder (its best).
        out: the folder to make; it must not exist or be empty.
        dtype: of the written weights; float16 halves the file.

    Raises:
        UserError: nothing at `checkpoint`, something at `out`, or an unknown dtype.
    """
    import torch

    from src.models.restore import image_processor_of, restore

    out = Path(out)
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}; set dtype=float32")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"out={str(out)!r} is not empty; expected a new folder; set out=<another folder>")
    module = restore(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        module.model.generation_config.update(num_beams=module.num_beams, max_length=module.max_length or 32)
        module.model.to(getattr(torch, dtype)).save_pretrained(folder)
        module.preprocessing.tokenizer.save_pretrained(folder)
        image_processor_of(module.base_id).save_pretrained(folder)
        folder.chmod(0o755)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def main(arguments: list[str]) -> None:
    """Read `key=value` arguments and export."""
    from src.utils.command import parse_command

    settings: dict[str, Any] = parse_command(arguments, {"checkpoint": None, "out": None, "dtype": "float32"})
    folder = export(**settings)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder}: {size:.1f} MB; VisionEncoderDecoderModel.from_pretrained({str(folder)!r}) loads it")


if __name__ == "__main__":
    from src.utils.command import run_command

    run_command(main, sys.argv[1:])
