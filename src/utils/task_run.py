"""Run a task in its run folder: check the config before it, record it, and report how it ended."""

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
from src.utils.resource_errors import resource_error, threads_report_full_disk
from src.utils.run_folder import (
    check_same_settings,
    expand_home,
    plain_config,
    redact,
    redact_hydra_files,
    resumed_run,
    write_json,
)
from src.utils.stopping import (
    Stopped,
    StopSignal,
    handle_signals,
    how_to_resume,
    let_rank_0_exit_first,
    raise_stop,
)

log = get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "pytorch-lightning", "transformers", "hydra-core")


@contextmanager
def task_run(config: DictConfig) -> Iterator[Path]:
    """Check the config, run the task in its run folder, and record how it ended.

    Before the task: `check_config`, the extras, `config_resolved.yaml`, `run.json`; nothing slow is imported before
    the config was checked. After it, also when it fails: `run.json` with its seconds and status, `error.log` with
    the traceback of a fault, loggers closed. Ctrl-C, SIGTERM and SIGUSR1 end the task at once, where nothing inside
    handles them.

    Raises:
        UserError: the config is wrong, or memory or disk ran out, with the settings that help.
        Stopped: a signal arrived.
        whatever the task raises; in an entry's single job the process ends here instead.
    """
    folder, start = Path(config.paths.output_dir), time.monotonic()
    try:
        expand_home(config)
        data_dir = OmegaConf.select(config, "datamodule.data_dir")
        if isinstance(data_dir, str):  # so that a checkpoint finds its data from any folder
            OmegaConf.update(config, "datamodule.data_dir", str(Path(data_dir).absolute()))
        if rank() == 0:
            redact_hydra_files(folder)
        check_config(config)
        _check_resumed_folder(config, folder)
        apply_extras(config, folder)
        about = _about(config)
        _write(folder, config, about | {"status": "running"})
    except Exception as error:
        leave(error, whole=True)
        raise
    status = "finished"
    try:
        try:
            with handle_signals(raise_stop), threads_report_full_disk():
                yield folder
        except StopSignal as signal:
            raise Stopped(signal.number, f"; {how_to_resume(folder)}") from None
    except BaseException as error:
        status = "stopped" if isinstance(error, KeyboardInterrupt | Stopped) else "failed"
        _write_traceback(error, folder)
        let_rank_0_exit_first(error)
        reported = resource_error(error, config)
        leave(reported or error, whole=status == "stopped")
        if reported:
            raise reported from error
        raise
    finally:
        close_loggers(failed=status == "failed")
        seconds = round(time.monotonic() - start, 3)
        if rank() == 0:
            _record(folder, about | {"status": status, "seconds": seconds})
        if status != "finished":  # else the task's summary has it
            log.info("run folder: %s", folder)
        if status == "failed" and (folder / "checkpoints" / "last.ckpt").is_file():
            log.info("%s", how_to_resume(folder))


def _check_resumed_folder(config: DictConfig, folder: Path) -> None:
    """Refuse other settings before the folder of the run that is resumed is written to.

    Raises:
        ConfigErrors: one line for each setting that differs from that run's.
    """
    if "train" not in config or not config.get("ckpt_path") or rank() != 0:
        return
    before = folder / "config_resolved.yaml"
    if (
        resumed_run(config.ckpt_path, config.paths.log_dir, config.task_name) == folder.resolve()
        and before.is_file()
    ):
        earlier: Any = OmegaConf.to_container(OmegaConf.load(before))
        check_same_settings(plain_config(config), earlier, before)


def _write_traceback(error: BaseException, folder: Path) -> None:
    """Write the traceback of a fault, not of a user's mistake, to `error.log`, and add a note that names it."""
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
    """Write the resolved config, without loggers and secrets, and `run.json`.

    Raises:
        UserError: the folder cannot be written.
    """
    if rank() != 0:
        return
    try:
        with atomic_write(folder / "config_resolved.yaml") as file:
            file.write(OmegaConf.to_yaml(plain_config(config)))
    except OSError as error:
        raise UserError(
            f"paths.output_dir={folder} cannot be written ({error.strerror}); expected a folder with room; "
            "set paths.log_dir=FOLDER"
        ) from error
    write_json(folder / "run.json", about)


def _about(config: DictConfig) -> dict[str, Any]:
    """Return command, commit, versions, seed and machine."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *redact(sys.argv[1:])]),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "seed": config.get("seed"),
        "tags": list(config.get("tags") or []),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def close_loggers(failed: bool = False) -> None:
    """Close loggers that would stay open after the task: a multirun's next job needs a run of its own."""
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))
    if mlflow is not None and mlflow.active_run() is not None:
        mlflow.end_run("FAILED" if failed else "FINISHED")
