"""Kill a training with `kill -9` at random moments, resume it until it ends, compare: nothing may be lost.

    python -m tests.faults.kill_and_resume --runs 25

Each run is killed several times, while the feature cache is built, within steps, while a checkpoint is written, while
it validates, tests and reports, each time at a random moment. After each kill every file has to be whole; at its end
the run has to equal the one that nobody killed, bit for bit: weights, optimizer, best checkpoint, metrics,
predictions, feature cache. Its curves may lack the step at hand in a kill (`points_lost`). The last line is JSON; the
exit status is 0 only when all were equal.

--kills   at most so many kills a run
--seed    of the moments
--cold    start Python anew for each training; without it a fork that has imported torch already becomes `train.py`
--keep    folder for all files; a temporary one is removed at the end
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
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from tests.faults.phases import PHASES, VARIABLE, look
from tests.faults.training import SETTINGS, Place, Process, import_all, make_world
from tests.faults.whole_files import half_written, leftovers

WATCH = ("+callbacks.phases._target_=tests.faults.phases.Phases",
         "callbacks.feature_cache._target_=tests.faults.phases.WatchedCache",
         "callbacks.last_checkpoint.every_n_steps=1")  # fmt: skip
AIMS = ("start", "load", "step", "step", "checkpoint", "checkpoint", "checkpoint", "validation", "validation", "test",
        "report")  # fmt: skip
POLL = 0.001  # seconds
MOST_LOST = 6  # numbers that are logged in one step


class Trials:
    """One unbroken training, and as many killed ones as asked for."""

    def __init__(self, folder: Path, warm: bool, seed: int, kills: int) -> None:
        self.folder, self.warm, self.kills = folder, warm, kills
        self.random = random.Random(seed)
        self.settings = [*SETTINGS, *WATCH, *make_world(folder)]
        self.seconds: dict[str, float] = {}  # mean length of each phase
        self.faults: list[str] = []
        self.killed: Counter[str] = Counter()
        self.points_lost = 0
        self.whole = Place(folder / "whole")
        process = self._start(self.whole, [])
        self._measure(process, self._phase_file(self.whole))
        if process.wait():
            raise RuntimeError(f"the unbroken training failed: {self.whole.output.read_text()[-2000:]}")

    def run(self, number: int) -> tuple[list[str], list[str]]:
        """Kill and resume one training; the phases in which it was killed, and in what it is not equal."""
        place = Place(self.folder / str(number))
        killed: list[str] = []
        for aim in self._plan():
            phase = self._until_killed(place, aim)
            if phase is None:
                break
            killed.append(phase)
            self.faults += half_written(place.folder)
            if len(killed) == 1:
                _leave_half_files(place)
        else:
            self._until_killed(place, None)
        self.killed.update(killed)
        self.faults += half_written(place.folder)
        self.faults += [name for name in leftovers(place.folder) if not name.startswith(".stale")]
        unlike = differences(self.whole, place)
        lost, changed = compare_curves(self.whole, place)
        self.points_lost += lost
        unlike += ["curves"] * (changed or lost > len(killed) * MOST_LOST)
        if not unlike:
            shutil.rmtree(place.folder)
        return killed, unlike

    def _plan(self) -> list[str]:
        """What to kill in, one after another: often the cache first, what comes late only once."""
        count = self.random.randint(min(2, self.kills), self.kills)
        aims = self.random.sample(AIMS, count)
        early = ["cache"] * self.random.choice((0, 1, 1, 2))
        return (early + sorted(aims, key=lambda aim: PHASES.index(aim) >= PHASES.index("test")))[: self.kills]

    def _until_killed(self, place: Place, aim: str | None) -> str | None:
        """Start or go on, and kill in a random moment of a phase: the phase that it was in, None when it ended."""
        process = self._start(place, ["ckpt_path=last"] if place.has_checkpoint() else [])
        file = self._phase_file(place)
        times = self.random.randint(1, 4) if aim in ("step", "checkpoint") else 1
        if aim is not None and _reaches(process, file, aim, times):
            time.sleep(self.random.uniform(0, self.seconds.get(aim, 0.02)))
            phase = look(file)
            if process.kill() < 0:
                return phase
        status = process.wait()
        if status:
            raise RuntimeError(f"a training failed with {status}: {place.output.read_text()[-3000:]}")
        return None

    def _start(self, place: Place, more: list[str]) -> Process:
        file = self._phase_file(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\0")
        return Process(place, [*self.settings, *more], {VARIABLE: str(file)}, self.warm)

    def _phase_file(self, place: Place) -> Path:
        return place.folder / "phase"

    def _measure(self, process: Process, file: Path) -> None:
        """Mean seconds of each phase of the unbroken training."""
        lengths: dict[str, list[float]] = defaultdict(list)
        phase, began = "start", time.monotonic()
        while process.status() is None:
            now = look(file)
            if now != phase:
                lengths[phase].append(time.monotonic() - began)
                phase, began = now, time.monotonic()
            time.sleep(POLL)
        lengths[phase].append(time.monotonic() - began)
        self.seconds = {name: sum(found) / len(found) for name, found in lengths.items()}


def _reaches(process: Process, file: Path, aim: str, times: int) -> bool:
    """Wait until a phase begins for the `times`-th time; False when the process ends before."""
    seen = ""
    while process.status() is None:
        if (now := look(file)) != seen:
            seen = now
            times -= now == aim
            if not times:
                return True
        time.sleep(POLL)
    return False


def _leave_half_files(place: Place) -> None:
    """Half a checkpoint and half a shard under temporary names, as systems without nameless files keep them."""
    for folder in [*place.folder.glob("logs/train/runs/*/checkpoints"), *place.folder.glob("cache/*/*")]:
        (folder / ".stale.ckpt.0000.tmp").write_bytes(b"PK\x03\x04 half a file")


def differences(whole: Place, other: Place) -> list[str]:
    """Names of what the last run of `other` has otherwise than the only one of `whole`."""
    one, two = final(whole), final(other)
    return [name for name in one if not same(one[name], two.get(name))]


def final(place: Place) -> dict[str, Any]:
    """What a training came to: checkpoints, metrics, predictions, curves, cache."""
    run = place.runs()[-1]
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    metrics = json.loads((run / "metrics.json").read_text())
    return {
        **{f"last.ckpt {name}": last[name] for name in
           ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "loops")},
        **{f"best.ckpt {name}": best[name] for name in ("state_dict", "epoch", "global_step")},
        "metrics.json": {name: value for name, value in metrics.items() if not name.startswith("time/")},
        "predictions.csv": (run / "predictions.csv").read_bytes(),
        "splits.csv": (run / "splits.csv").read_bytes(),
        "feature cache": {path.name: path.read_bytes() for path in place.folder.glob("cache/*/*/*.safetensors")},
    }  # fmt: skip


def compare_curves(whole: Place, other: Place) -> tuple[int, bool]:
    """How many logged numbers the curves of `other` lack, and whether they hold any that `whole` has not."""
    one, two = curves(whole.runs()[-1]), curves(other.runs()[-1])
    return len(one.keys() - two.keys()), any(one.get(name) != value for name, value in two.items())


def curves(run: Path) -> dict[str, float]:
    """What was logged in each step, by the run itself or by those that it went on from."""
    from src.report.run_files import read_history

    return {
        f"{name} {row['step']:.0f}": value
        for row in read_history(run / "csv")
        for name, value in row.items()
        if name != "step"
    }


def same(one: Any, other: Any) -> bool:
    """Equality bit for bit, of tensors too."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    if not options.cold:
        import_all()
    folder, began = options.keep or Path(tempfile.mkdtemp(prefix="kill_and_resume_")), time.monotonic()
    trials = Trials(folder, not options.cold, options.seed, options.kills)
    lengths = ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in trials.seconds.items())
    print(f"unbroken: {time.monotonic() - began:.1f} s; phases in ms: {lengths}", flush=True)
    equal = 0
    for number in range(1, options.runs + 1):
        start = time.monotonic()
        killed, unlike = trials.run(number)
        equal += not unlike
        verdict = f"UNLIKE in {', '.join(unlike)}" if unlike else "equal"
        print(
            f"run {number}/{options.runs}: killed in {', '.join(killed) or 'nothing'}; "
            f"{time.monotonic() - start:.1f} s; {verdict}",
            flush=True,
        )
    result = {
        "runs": options.runs, "equal": equal, "kills": dict(trials.killed), "half_written": trials.faults,
        "points_lost": trials.points_lost,
        "seconds": round(time.monotonic() - began, 1), "seed": options.seed, "cold": options.cold,
    }  # fmt: skip
    if not options.keep and equal == options.runs:
        shutil.rmtree(folder)
    print(json.dumps(result))
    return int(equal < options.runs or bool(trials.faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
