"""What every run leaves beside its results: its config, its command, its errors, and the way back to it."""

import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger, rank

log = get_logger(__name__)
PACKAGES = ("torch", "pytorch-lightning", "transformers", "hydra-core")


@contextmanager
def task_run(config: DictConfig) -> Iterator[Path]:
    """Around a task: writes `config_resolved.yaml` and `run.json`, keeps a traceback in `error.log`, closes loggers.

    Raises:
        whatever the task raises, after it was written down.
    """
    folder = Path(config.paths.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.monotonic()
    if rank() == 0:
        with atomic_write(folder / "config_resolved.yaml") as file:
            file.write(OmegaConf.to_yaml(config, resolve=True))
    try:
        yield folder
    except BaseException as error:
        if rank() == 0 and not isinstance(error, UserError | KeyboardInterrupt):
            with atomic_write(folder / "error.log") as file:
                file.write(traceback.format_exc())
        raise
    finally:
        if rank() == 0:
            about = _about(config) | {"started": started, "seconds": round(time.monotonic() - clock, 3)}
            write_json(folder / "run.json", about)
            log.info("run folder: %s", folder)


def _about(config: DictConfig) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "seed": config.get("seed"),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


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
    """`checkpoints/last.ckpt` of the newest training run.

    Raises:
        UserError: no run has one.
    """
    found = sorted(
        Path(log_dir).glob("train/*/**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise UserError(
            f"ckpt_path=last: no run under {log_dir} has checkpoints/last.ckpt; expected one; set ckpt_path=<file>"
        )
    return found[-1]


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
