"""Whether every file that a run may leave can be read whole, at whatever moment it was killed."""

import csv
import hashlib
import json
from pathlib import Path

import torch


def half_written(folder: Path) -> list[str]:
    """Names and faults of the checkpoints, caches, JSON and CSV files under `folder` that are not whole."""
    faults = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            _read(path)
        except Exception as error:  # whatever a reader says of half a file
            faults.append(f"{path}: {type(error).__name__}: {error}")
    return faults


def leftovers(folder: Path) -> list[str]:
    """Temporary files under `folder`."""
    return sorted(path.name for path in folder.rglob("*.tmp"))


def _read(path: Path) -> None:
    if path.suffix == ".ckpt":
        torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    elif path.suffix == ".safetensors":
        assert hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest() == path.stem
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        text = path.read_text(encoding="utf-8")
        assert text.endswith("\n"), "its last line is cut"
        header, *rows = csv.reader(text.splitlines())
        assert all(len(row) == len(header) for row in rows), "a row has other columns than the header"
