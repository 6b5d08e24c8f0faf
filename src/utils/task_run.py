"""Run a task in its run folder: check the config before it, record it, and report how it ended."""

import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.utils.config_check import check_config
from src.utils.entry import leave
from src.utils.errors import Stopped, StopSignal, UserError, handle_signals, how_to_resume, resource_error
from src.utils.files import atomic_write, write_json, write_text
from src.utils.logging import get_logger, rank
from src.utils.run_folder import expand_home, plain_config, redact, redact_hydra_files

log = get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "pytorch-lightning", "transformers", "hydra-core")
HEAD_START_SECONDS = 2.0


@contextmanager
def task_run(config: DictConfig) -> Iterator[Path]:
    """Check the config, run the task in its run folder, and record how it ended in `run.json` and `error.log`.

    Signals end the task (`Stopped`) where nothing inside handles them. An error is raised again, that of memory or
    disk as a UserError; in an entry's single job the process ends here.
    """
    folder, start = Path(config.paths.output_dir), time.monotonic()
    try:
        about = _prepare(config, folder)
    except Exception as error:
        leave(error, whole=True)
        raise
    status = "finished"
    try:
        try:
            with handle_signals():
                yield folder
        except StopSignal as signal:
            raise Stopped(signal.number, f"; {how_to_resume(folder)}") from None
    except BaseException as error:
        status = "stopped" if isinstance(error, KeyboardInterrupt | Stopped) else "failed"
        _write_traceback(error, config)
        if rank() and getattr(error, "everywhere", False):
            time.sleep(HEAD_START_SECONDS)  # a launcher kills all when one ends, and rank 0 still writes
        reported = resource_error(error, OmegaConf.select(config, "datamodule.batch_size"))
        leave(reported or error, whole=status == "stopped")
        if reported:
            raise reported from error
        raise
    finally:
        close_loggers(failed=status == "failed")
        if rank() == 0:
            try:
                seconds = round(time.monotonic() - start, 3)
                write_json(folder / "run.json", about | {"status": status, "seconds": seconds})
            except UserError as error:  # must not hide how the task ended
                log.warning("%s", error)
        if status != "finished":  # else the task's summary has it
            log.info("run folder: %s", folder)
        if status == "failed" and (folder / "checkpoints" / "last.ckpt").is_file():
            log.info("%s", how_to_resume(folder))


def _prepare(config: DictConfig, folder: Path) -> dict[str, Any]:
    expand_home(config)
    data_dir = OmegaConf.select(config, "datamodule.data_dir")
    if isinstance(data_dir, str):  # so that a checkpoint finds its data from any folder
        OmegaConf.update(config, "datamodule.data_dir", str(Path(data_dir).absolute()))
    if rank() != 0:
        check_config(config)
        return {}
    redact_hydra_files(folder)
    check_config(config)
    if OmegaConf.select(config, "extras.print_config"):
        print_config(config)
    resolved, resumes = folder / "config_resolved.yaml", "train" in config and config.get("ckpt_path")
    if not (resumes and resolved.is_file()):  # else `train` writes it once it accepts the settings
        write_text(resolved, OmegaConf.to_yaml(plain_config(config)))
    about = {
        "command": shlex.join([Path(sys.argv[0]).name, *redact(sys.argv[1:])]),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "seed": config.get("seed"),
        "tags": list(config.get("tags") or []),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_json(folder / "run.json", about | {"status": "running"})
    return about


def _git(*arguments: str) -> str | None:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=5)
        return done.stdout.strip() or None
    return None


def print_config(config: DictConfig) -> None:
    """Show the config, without secrets and with its interpolations."""
    from rich.console import Console
    from rich.syntax import Syntax

    text = OmegaConf.to_yaml(OmegaConf.create(redact(OmegaConf.to_container(config, resolve=False))))
    Console(stderr=True).print(Syntax(text.strip(), "yaml", background_color="default"))


def _write_traceback(error: BaseException, config: DictConfig) -> None:
    if isinstance(error, UserError | KeyboardInterrupt | SystemExit):
        return
    path = Path(config.paths.output_dir) / "error.log"
    if rank():
        path = Path(config.paths.log_dir) / config.task_name / f"error_rank_{rank()}.log"
    try:
        with atomic_write(path) as file:
            file.write("".join(traceback.format_exception(error)))
        error.add_note(f"the traceback is in {path}")
    except OSError as fault:  # a full disk may be what failed; without the note the traceback is shown
        log.warning("%s cannot be written: %s", path, fault)


def close_loggers(failed: bool = False) -> None:
    """Close loggers that would stay open after the task: a multirun's next job needs a run of its own."""
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))
    if mlflow is not None and mlflow.active_run() is not None:
        mlflow.end_run("FAILED" if failed else "FINISHED")
