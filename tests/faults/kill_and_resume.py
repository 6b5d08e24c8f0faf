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

from src.callbacks.feature_cache import FeatureCache
from src.report.run_files import read_history
from tests.faults.tiny import same
from tests.faults.training import SETTINGS, Place, Process, import_all, make_world
from tests.faults.whole_files import half_written

VARIABLE = "FAULTS_PHASE"  # "<phase> <n> <pipe>": the n-th time that the phase begins, a byte is written to the pipe
WATCH = ("callbacks.feature_cache._target_=tests.faults.kill_and_resume.Phases",
         "callbacks.last_checkpoint.every_n_steps=1")  # fmt: skip
AIMS = ("setup", "setup", "step", "step", "checkpoint", "checkpoint", "validation", "validation", "test", "report")
LOGGED_PER_STEP = 6


class Phases(FeatureCache):
    """The feature cache, which tells the process that started the run when a phase begins."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.begun: Counter[str] = Counter()

    def begin(self, phase: str) -> None:
        self.begun[phase] += 1
        aim, times, pipe = os.environ[VARIABLE].split()
        if (phase, self.begun[phase]) == (aim, int(times)):
            os.write(int(pipe), b".")

    def setup(self, *arguments: Any, **settings: Any) -> None:
        self.begin("setup")
        super().setup(*arguments, **settings)

    def on_train_batch_start(self, *_: Any) -> None:
        self.begin("step")

    def on_save_checkpoint(self, *_: Any) -> None:
        self.begin("checkpoint")

    def on_validation_start(self, *_: Any) -> None:
        self.begin("validation")

    def on_test_start(self, *_: Any) -> None:
        self.begin("test")

    def on_test_end(self, *_: Any) -> None:
        self.begin("report")


def run_until(place: Place, settings: list[str], aim: str, rng: random.Random) -> bool:
    """Start or resume a training and kill it soon after a phase began; return False when it ended before."""
    more = ["ckpt_path=last"] if place.has_checkpoint() else []
    times = rng.randint(1, 4) if aim in ("step", "checkpoint") else 1
    begun, pipe = os.pipe()
    process = Process(place, [*settings, *more], {VARIABLE: f"{aim} {times} {pipe}"})
    os.close(pipe)
    if os.read(begun, 1):
        time.sleep(rng.uniform(0, 0.2 if aim == "setup" else 0.05))
        process.kill()
    os.close(begun)
    if (status := process.wait()) > 0:
        raise RuntimeError(f"a training failed with {status}: {place.output.read_text()[-3000:]}")
    return status < 0


def kill_and_resume(place: Place, settings: list[str], most: int, rng: random.Random) -> tuple[list[str], list[str]]:
    """Kill and resume one training until it ends; return the phases that it was killed in and the faults of files."""
    aims = rng.sample(AIMS, rng.randint(min(2, most), most))
    killed, faults = [], []
    for aim in [*sorted(aims, key=lambda aim: {"setup": 0, "test": 2, "report": 2}.get(aim, 1)), "never"]:
        if not run_until(place, settings, aim, rng):
            break
        killed.append(aim)
        faults += half_written(place.folder)
        for folder in [*place.folder.glob("logs/train/runs/*/checkpoints"), *place.folder.glob("cache/*/*")]:
            # as a killed process may leave them
            (folder / ".stale.ckpt.0000.tmp").write_bytes(b"PK\x03\x04 half a file")
    return killed, faults


def unlike(one: Place, other: Place, kills: int) -> list[str]:
    """Return in what two trainings do not agree, the second of which was killed and resumed."""
    expected, found = final(one), final(other)
    names = [name for name in expected if not same(expected[name], found.get(name))]
    whole, cut = curves(one.runs()[-1]), curves(other.runs()[-1])
    lost = len(whole.keys() - cut.keys())
    return names + ["curves"] * (lost > kills * LOGGED_PER_STEP or not cut.items() <= whole.items())


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


def curves(run: Path) -> dict[tuple[str, float], float]:
    """Return what a run logged by name and step."""
    return {(name, row["step"]): value for row in read_history(run / "csv") for name, value in row.items()}


def main() -> int:
    parser = argparse.ArgumentParser()
    for name, default in {"runs": 25, "kills": 4, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    import_all()
    folder, rng = Path(tempfile.mkdtemp(prefix="kill_and_resume_")), random.Random(options.seed)
    settings, whole = [*SETTINGS, *WATCH, *make_world(folder)], Place(folder / "whole")
    run_until(whole, settings, "never", rng)
    equal, kills, half = 0, Counter[str](), list[str]()
    for number in range(1, options.runs + 1):
        place = Place(folder / str(number))
        killed, faults = kill_and_resume(place, settings, options.kills, rng)
        names = unlike(whole, place, len(killed))
        equal += not names
        kills.update(killed)
        half += faults
        print(f"run {number}: {', '.join(names) or 'equal'}", flush=True)
    good = equal == options.runs and not half
    result = {"runs": options.runs, "equal": equal, "kills": kills, "half_written": half}
    print(json.dumps(result | ({} if good else {"folder": str(folder)})))
    if good:
        shutil.rmtree(folder)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
