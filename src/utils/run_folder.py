"""Run folders: where they are, and the way back to a run's checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.utils.errors import UserError
from src.utils.files import atomic_write


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    Raises:
        UserError: the file cannot be written; one that was there stays as it was.
    """
    try:
        with atomic_write(path) as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); expected room for it; free some space"
        ) from error


def newest_checkpoint(log_dir: str | Path) -> Path:
    """`checkpoints/last.ckpt` of the newest training run; folders are named by the time they began.

    Raises:
        UserError: no run has one.
    """
    folder = Path(log_dir) / "train"
    found = [
        *folder.glob("runs/*/checkpoints/last.ckpt"),
        *folder.glob("multiruns/*/*/checkpoints/last.ckpt"),
    ]
    if not found:
        raise UserError(
            f"ckpt_path=last: no run under {folder} left a checkpoint; expected one; set ckpt_path=FILE"
        )
    return max(found, key=_began)


def _began(checkpoint: Path) -> tuple[str, int]:
    """The stamp of a run's folder; within a multirun the number of the job."""
    run = checkpoint.parents[1]
    return (run.parent.name, int(run.name)) if run.name.isdigit() else (run.name, 0)


def find_checkpoint(ckpt_path: str | None, log_dir: str | Path) -> str | None:
    """The checkpoint file that `ckpt_path` means: a file, a run folder (its best), `last`, or None.

    Raises:
        UserError: there is none.
    """
    if not ckpt_path:
        return None
    if ckpt_path == "last":
        return str(newest_checkpoint(log_dir))
    path = Path(ckpt_path).expanduser()
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise UserError(
            f"ckpt_path={ckpt_path!r} does not exist; expected a .ckpt file, a run folder or `last`; "
            "set ckpt_path=<run>/checkpoints/best.ckpt"
        )
    return str(path.resolve())


def checkpoint_file(checkpoint: str) -> Path | None:
    """The `.ckpt` that is meant, or None for a `save_pretrained` folder and for what may be a hub id.

    Raises:
        UserError: a file or folder that is not there, or a run folder without a checkpoint.
    """
    if checkpoint == "last":
        return newest_checkpoint("logs").resolve()
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path.resolve()
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "best.ckpt", "last.ckpt"):
        if (path / name).is_file():
            return (path / name).resolve()
    local = path.suffix == ".ckpt" or checkpoint.startswith((".", "~", "/")) or checkpoint.count("/") > 1
    if (local and not path.exists()) or (
        (path / "run.json").is_file() and not (path / "config.json").is_file()
    ):
        what = "holds no checkpoint" if path.exists() else "does not exist"
        raise UserError(
            f"checkpoint={checkpoint!r} {what}; expected a .ckpt, a run folder, a saved folder or a hub id; "
            "set checkpoint=<run>/checkpoints/best.ckpt"
        )
    return None
