"""Whole runs of train.py in processes of their own, and what they left."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class FinishedRun:
    """metrics: of metrics.json. weights: that were trained. checkpoint_mb: of best.ckpt. peak_gb: memory."""

    metrics: Mapping[str, float]
    weights: int
    checkpoint_mb: float
    peak_gb: float


def run_train(words: Sequence[str], log_dir: Path) -> FinishedRun:
    """Run train.py with `words`, its run folder in `log_dir`.

    Raises:
        UserError: the run failed; its own output says why.
    """
    before = set(log_dir.glob("train/runs/*"))
    command = [sys.executable, "train.py", *words, f"paths.log_dir={log_dir}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that no one waits for it again
    if process.returncode:
        raise UserError(f"train.py {' '.join(words)} failed; expected a finished run; see its output above")
    (folder,) = set(log_dir.glob("train/runs/*")) - before
    best = folder / "checkpoints" / "best.ckpt"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return FinishedRun(
        metrics, trained_weights(best), best.stat().st_size / 1e6, usage.ru_maxrss * 1024 / 1e9
    )


def trained_weights(checkpoint: Path) -> int:
    """How many weights a checkpoint holds."""
    from src.models.checkpoint import read_checkpoint

    return sum(weight.numel() for weight in read_checkpoint(checkpoint)["state_dict"].values())


def cider_cell(metrics: Mapping[str, float], prefix: str) -> str:
    """CIDEr-D with its interval."""
    low, high = metrics[f"{prefix}cider_d_low"], metrics[f"{prefix}cider_d_high"]
    return f"{metrics[f'{prefix}cider_d']:.2f} ({low:.2f} to {high:.2f})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [" | ".join(cells) for cells in (header, *rows)]
    return "\n".join([f"| {lines[0]} |", f"|{'---|' * len(header)}", *(f"| {line} |" for line in lines[1:])])
