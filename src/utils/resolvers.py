"""OmegaConf resolvers: functions that the YAML files call as `${name:}`."""

import atexit
import functools
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from src.utils.logging import rank

STAMP_FORMAT = "%Y-%m-%d_%H-%M-%S-%f"


def run_stamp() -> str:
    """A folder name that sorts by time and that no other job takes: `2026-01-31_17-05-09-123456-a1b2c3`.

    The six random digits keep apart two jobs that start in the same microsecond.
    """
    return f"{datetime.now().strftime(STAMP_FORMAT)}-{os.urandom(3).hex()}"


def run_root(log_dir: str) -> str:
    """Return where this process creates its run folder: `log_dir`, or a temporary folder on any rank but 0.

    Under torchrun or SLURM each rank composes its own config and so its own stamp. One run has one folder,
    that of rank 0; the others' would stand empty beside it.
    """
    return str(Path(log_dir).expanduser()) if rank() == 0 else _rank_folder()


def run_folder(log_dir: str, task_name: str, ckpt_path: str | None = None) -> str:
    """Return the run folder of a training: that of the run which it resumes, else a new one."""
    from src.utils.run_folder import resumed_run

    resumed = resumed_run(ckpt_path, log_dir, task_name) if rank() == 0 else None
    return str(resumed or Path(run_root(log_dir)) / task_name / "runs" / run_stamp())


@functools.cache
def _rank_folder() -> str:
    """Return a temporary folder of this process alone, which is removed at its end unless it holds an error log."""
    folder = tempfile.mkdtemp(prefix="captioner-rank-")

    def remove() -> None:
        if not any(Path(folder).rglob("error*.log")):
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def made_folder(path: str) -> str:
    """Create a folder and return it: SQLite creates its file but no folder."""
    Path(path).expanduser().mkdir(parents=True, exist_ok=True)
    return str(Path(path).expanduser())


def register_resolvers() -> None:
    """Register the functions of this file with OmegaConf; another call changes nothing.

    The stamp is cached in the config, so that every mention in one run is the same.
    """
    OmegaConf.register_new_resolver("run_stamp", run_stamp, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_root", run_root, replace=True)
    OmegaConf.register_new_resolver("made_folder", made_folder, replace=True)
