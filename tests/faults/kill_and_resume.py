"""Kill a training with `kill -9` at random moments, resume it until it ends, compare: nothing may be lost.

    python -m tests.faults.kill_and_resume --runs 25 --kills 4 --seed 0

Each run is killed up to `--kills` times: while the feature cache is built, within steps, while a checkpoint is written,
while it validates, tests and reports. After each kill every file has to be whole; at its end the run has to equal an
uninterrupted one, bit for bit: weights, optimizer, best checkpoint, metrics, predictions, feature cache. Its curves may
lack the step at hand in a kill. The last line is JSON; the exit status is 0 only when all were equal.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process with threads would hang

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from src.report.run_files import read_history
from tests.faults.phases import PHASES, VARIABLE, look
from tests.faults.tiny import same
from tests.faults.training import SETTINGS, Place, Process, import_all, make_world
from tests.faults.whole_files import half_written, leftovers

WATCH = (
    "+callbacks.phases._target_=tests.faults.phases.Phases",
    "callbacks.feature_cache._target_=tests.faults.phases.WatchedCache",
    "callbacks.last_checkpoint.every_n_steps=1",
)
AIMS = (
    "start",
    "load",
    "step",
    "step",
    "checkpoint",
    "checkpoint",
    "validation",
    "validation",
    "test",
    "report",
)
MOST_LOST = 6  # numbers that are logged in one step


class Trials:
    """One uninterrupted training, and as many killed ones as asked for."""

    def __init__(self, folder: Path, seed: int, kills: int) -> None:
        self.folder, self.kills, self.rng = folder, kills, random.Random(seed)
        self.settings = [*SETTINGS, *WATCH, *make_world(folder)]
        self.faults: list[str] = []
        self.killed: Counter[str] = Counter()
        self.whole = Place(folder / "whole")
        self._run_until(self.whole, None)

    def run(self, number: int) -> list[str]:
        """Kill and resume one training; return in what it is not equal."""
        place, killed = Place(self.folder / str(number)), 0
        for aim in [*self._plan(), None]:
            phase = self._run_until(place, aim)
            self.faults += half_written(place.folder)
            if phase is None:
                break
            if not killed:
                _leave_half_files(place)
            self.killed[phase] += 1
            killed += 1
        self.faults += [name for name in leftovers(place.folder) if not name.startswith(".stale")]
        one, two = final(self.whole), final(place)
        unlike = [name for name in one if not same(one[name], two.get(name))]
        curves = [_curves(each.runs()[-1]) for each in (self.whole, place)]
        lost = len(curves[0].keys() - curves[1].keys())
        if lost > killed * MOST_LOST or not curves[1].items() <= curves[0].items():
            unlike.append("curves")
        return unlike

    def _plan(self) -> list[str]:
        """Return phases to kill in, one after another: often the cache first, what comes late at the end."""
        aims = self.rng.sample(AIMS, self.rng.randint(min(2, self.kills), self.kills))
        early = ["cache"] * self.rng.choice((0, 1, 1, 2))
        return (early + sorted(aims, key=lambda aim: PHASES.index(aim) >= PHASES.index("test")))[: self.kills]

    def _run_until(self, place: Place, aim: str | None) -> str | None:
        """Start or resume, and kill soon after a phase began: the phase it was in, None when it ended."""
        file = place.folder / "phase"
        place.folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\0")
        more = ["ckpt_path=last"] if place.has_checkpoint() else []
        process = Process(place, [*self.settings, *more], {VARIABLE: str(file)})
        times = self.rng.randint(1, 4) if aim in ("step", "checkpoint") else 1
        if aim is not None and _reaches(process, file, aim, times):
            time.sleep(self.rng.uniform(0, 0.05))
            phase = look(file)
            if process.kill() < 0:
                return phase
        if status := process.wait():
            raise RuntimeError(f"a training failed with {status}: {place.output.read_text()[-3000:]}")
        return None


def _reaches(process: Process, file: Path, aim: str, times: int) -> bool:
    """Wait until a phase begins for the `times`-th time; False when the process ends before."""
    seen = ""
    while process.status() is None:
        if (now := look(file)) != seen:
            seen = now
            times -= now == aim
            if not times:
                return True
        time.sleep(0.001)
    return False


def _leave_half_files(place: Place) -> None:
    """Half a checkpoint and half a shard under temporary names, as systems without nameless files keep them."""
    for folder in [*place.folder.glob("logs/train/runs/*/checkpoints"), *place.folder.glob("cache/*/*")]:
        (folder / ".stale.ckpt.0000.tmp").write_bytes(b"PK\x03\x04 half a file")


def final(place: Place) -> dict[str, Any]:
    """Return what a training came to: checkpoints, metrics, predictions, cache."""
    run = place.runs()[-1]
    last, best = (torch.load(run / "checkpoints" / name, weights_only=True) for name in ("last.ckpt", "best.ckpt"))
    metrics = json.loads((run / "metrics.json").read_text())
    names = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "loops")
    return {
        "last.ckpt": {name: last[name] for name in names},
        "best.ckpt": {name: best[name] for name in ("state_dict", "epoch", "global_step")},
        "metrics.json": {name: value for name, value in metrics.items() if not name.startswith("time/")},
        "predictions.csv": (run / "predictions.csv").read_bytes(),
        "splits.csv": (run / "splits.csv").read_bytes(),
        "cache": {path.name: path.read_bytes() for path in place.folder.glob("cache/*/*/*.safetensors")},
    }


def _curves(run: Path) -> dict[str, float]:
    return {
        f"{name} {row['step']:.0f}": value
        for row in read_history(run / "csv")
        for name, value in row.items()
        if name != "step"
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    trials = Trials(folder, options.seed, options.kills)
    equal = 0
    for number in range(1, options.runs + 1):
        unlike = trials.run(number)
        equal += not unlike
        print(f"run {number}: {', '.join(unlike) or 'equal'}", flush=True)
    good = equal == options.runs and not trials.faults
    result = {"runs": options.runs, "equal": equal, "kills": trials.killed, "half_written": trials.faults}
    print(json.dumps(result | ({} if good else {"folder": str(folder)})))
    if good:
        shutil.rmtree(folder)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
