"""What stands around a task: checks before it, records of it, and order after it."""

import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.utils.config_check import check_config
from src.utils.entry import leave
from src.utils.errors import UserError
from src.utils.extras import apply_extras
from src.utils.files import atomic_write
from src.utils.logging import get_logger, rank
from src.utils.lost_process import lost_process
from src.utils.run_folder import write_json
from src.utils.shortages import shortage, threads_in_a_line
from src.utils.stopping import (
    Stopped,
    StopSignal,
    how_to_go_on,
    let_rank_0_leave_first,
    listening,
    raise_stop,
)

log = get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "pytorch-lightning", "transformers", "hydra-core")


@contextmanager
def task_run(config: DictConfig) -> Iterator[Path]:
    """Around a task, giving its run folder: nothing slow is imported before the config was checked.

    Before it: `check_config`, the extras, `config_resolved.yaml`, `run.json`. After it, also when it fails:
    `run.json` with its seconds and how it ended, `error.log` with the traceback of a fault, loggers closed,
    the folder's place in the log. Ctrl-C, SIGTERM and SIGUSR1 end the task at once, where nothing inside listens.

    Raises:
        UserError: the config is wrong.
        Stopped: a signal came.
        UserError: memory or disk ran out, with the settings that help.
        whatever the task raises; from an entry's single job the process ends here instead.
    """
    folder, clock = Path(config.paths.output_dir), time.monotonic()
    try:
        check_config(config)
        apply_extras(config, folder)
        about = _about(config)
        _write(folder, config, about | {"status": "running"})
    except Exception as error:
        leave(error, whole=True)
        raise
    status = "finished"
    try:
        try:
            with listening(raise_stop), threads_in_a_line():
                yield folder
        except StopSignal as signal:
            raise Stopped(signal.number, f"; {how_to_go_on(folder)}") from None
    except BaseException as error:
        status = "stopped" if _is_stop(error) else "failed"
        _keep(error, folder)
        let_rank_0_leave_first(error)
        told = shortage(error, config) or lost_process(error)
        leave(told or error, whole=status == "stopped")
        if told:
            raise told from error
        raise
    finally:
        close_loggers(failed=status == "failed")
        seconds = round(time.monotonic() - clock, 3)
        if rank() == 0:
            _record(folder, about | {"status": status, "seconds": seconds})
        if status != "finished":  # else the task's summary has said so
            log.info("run folder: %s", folder)
        if status == "failed" and (folder / "checkpoints" / "last.ckpt").is_file():
            log.info("%s", how_to_go_on(folder))


def _is_stop(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt | Stopped)


def _keep(error: BaseException, folder: Path) -> None:
    """Write the traceback of what is not the person's own doing to `error.log` and say so in a note."""
    if isinstance(error, UserError | KeyboardInterrupt | SystemExit):
        return
    name = "error.log" if rank() == 0 else f"error_rank_{rank()}.log"
    try:
        with atomic_write(folder / name) as file:
            file.write("".join(traceback.format_exception(error)))
        error.add_note(f"the traceback is in {folder / name}")
    except OSError as fault:  # a full disk may be what failed; without the note the traceback is shown
        log.warning("%s cannot be written: %s", folder / name, fault)


def _record(folder: Path, about: dict[str, Any]) -> None:
    try:
        write_json(folder / "run.json", about)
    except UserError as error:  # must not hide how the task ended
        log.warning("%s", error)


def _write(folder: Path, config: DictConfig, about: dict[str, Any]) -> None:
    """Write the config with all values filled in, and `run.json`.

    Raises:
        UserError: the folder cannot be written.
    """
    if rank() != 0:
        return
    try:
        with atomic_write(folder / "config_resolved.yaml") as file:
            file.write(OmegaConf.to_yaml(config, resolve=True))
    except OSError as error:
        raise UserError(
            f"paths.output_dir={folder} cannot be written ({error.strerror}); expected a folder with room; "
            "set paths.log_dir=FOLDER"
        ) from error
    write_json(folder / "run.json", about)


def _about(config: DictConfig) -> dict[str, Any]:
    """Command, commit, versions, seed and machine."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "seed": config.get("seed"),
        "tags": list(config.get("tags") or []),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _git(*words: str) -> str | None:
    try:
        answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def close_loggers(failed: bool = False) -> None:
    """Close what would run on after the task: a multirun's next job has to begin a run of its own."""
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))
    if mlflow is not None and mlflow.active_run() is not None:
        mlflow.end_run("FAILED" if failed else "FINISHED")
