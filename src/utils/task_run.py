"""Run a task in its run folder: check the config before it, record it, and report how it ended."""

import json
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
from src.utils.files import atomic_write, local_path, write_json, write_text
from src.utils.logging import get_logger, rank
from src.utils.run_folder import expand_home, plain_config, redact, redact_hydra_files

log = get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "pytorch-lightning", "transformers", "hydra-core")
HEAD_START_SECONDS = 2.0
START_FILES = {"config_resolved.yaml", "run.json", "train.log", "eval.log"}
START_FILES |= {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}


@contextmanager
def task_run(config: DictConfig) -> Iterator[Path]:
    """Check the config, run the task in its run folder, and record how it ended in `run.json` and `error.log`.

    Signals end the task (`Stopped`) where nothing inside handles them. An error is raised again, that of memory or
    disk as a UserError; in an entry's single job the process ends here.
    """
    folder, start, status = Path(config.paths.output_dir), time.monotonic(), "finished"
    try:
        about = _prepare(config, folder)
    except Exception as error:
        _remove_failed_start(folder)
        leave(error, whole=True)
        raise
    log.info("run      %s", local_path(folder))
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
        wandb = sys.modules.get("wandb")
        if wandb is not None and getattr(wandb, "run", None) is not None:  # a multirun's next job needs its own
            wandb.finish(exit_code=int(status == "failed"))
        if rank() == 0:
            with suppress(UserError, OSError, ValueError, KeyError):  # a full disk must not hide how the task ended
                end = {"status": status, "seconds": round(time.monotonic() - start, 3)}
                noted = json.loads((folder / "run.json").read_text(encoding="utf-8"))  # the task may have added to it
                if noted["status"] == "running":  # else it is of a run that this start could not resume
                    write_json(folder / "run.json", noted | about | end)
        if status != "finished":
            _remove_failed_start(folder)
        if status == "failed" and (folder / "checkpoints" / "last.ckpt").is_file():
            log.info("%s", how_to_resume(folder))


def _prepare(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Check the config and write it; return what `run.json` says about the run."""
    expand_home(config)
    data_dir = OmegaConf.select(config, "datamodule.data_dir")
    if isinstance(data_dir, str):  # so that a checkpoint finds its data from any folder
        OmegaConf.update(config, "datamodule.data_dir", str(Path(data_dir).absolute()))
    if rank() == 0:
        redact_hydra_files(folder)
    check_config(config)
    if rank() != 0:
        return {}
    if OmegaConf.select(config, "extras.print_config"):  # with its interpolations
        print(OmegaConf.to_yaml(OmegaConf.create(redact(OmegaConf.to_container(config)))), file=sys.stderr)
    commit = None
    with suppress(OSError, subprocess.SubprocessError):  # no git, or no repository
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    about = {
        "command": shlex.join([Path(sys.argv[0]).name, *redact(sys.argv[1:])]),
        "commit": commit,
        "seed": config.get("seed"),
        "tags": list(config.get("tags") or []),
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    resolved, resumes = folder / "config_resolved.yaml", "train" in config and config.get("ckpt_path")
    if not (resumes and resolved.is_file()):  # else `train` writes both once it accepts the settings
        write_text(resolved, OmegaConf.to_yaml(plain_config(config)))
        write_json(folder / "run.json", about | {"status": "running"})
    return about


def _remove_failed_start(folder: Path) -> None:
    """Remove a folder that `run_folder` created and that holds nothing but the records of a start."""
    own = rank() == 0 and (folder.parent.name == "runs" or folder.parent.parent.name == "multiruns")
    found = [path for path in folder.rglob("*") if path != folder / ".hydra"] if own else []
    if own and {path.relative_to(folder).as_posix() for path in found} <= START_FILES:
        with suppress(OSError):  # such as a log that is open, on Windows
            for path in found:
                path.unlink()
            for path in folder.glob(".hydra"):
                path.rmdir()
            folder.rmdir()


def _write_traceback(error: BaseException, config: DictConfig) -> None:
    if isinstance(error, UserError | KeyboardInterrupt | SystemExit):
        return
    path = Path(config.paths.output_dir) / "error.log"
    if rank():
        path = Path(config.paths.log_dir) / config.task_name / f"error_rank_{rank()}.log"
    with suppress(OSError):  # a full disk may be what failed; without the note the traceback is shown
        with atomic_write(path) as file:
            file.write("".join(traceback.format_exception(error)))
        error.add_note(f"the traceback is in {path}")
