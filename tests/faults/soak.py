"""Train for a long time and watch the process: memory and open files must not grow.

    python -m tests.faults.soak --minutes 20

A real `train.py` reads pictures anew in every epoch, crops, trains, validates, writes captions, checkpoints, curves
and TensorBoard files, until the time is up; then it is told to stop by SIGTERM. Memory is what its pages take
(`RssAnon`: pages of files that are mapped may come and go as the system likes). oneDNN keeps a compiled kernel for
each of the last 1,024 shapes, which takes an hour to fill: the training keeps 64 of them, or all with `--as-shipped`.
The first third is warm-up; of the rest, the last half is compared with the first.

The last line is JSON; the exit status is 0 only when memory grew by less than 1%, no more files were open, and the
training left in order.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.faults.training import SETTINGS, Place, Process, make_world

LONG = ("trainer.max_epochs=1000000", "datamodule.augment=true", "datamodule.num_workers=2", "logger=tensorboard",
        "callbacks.last_checkpoint.every_n_steps=20", "test=false", "~callbacks.early_stopping",
        "+callbacks.weight_histograms._target_=src.callbacks.weight_histograms.WeightHistograms",
        "+callbacks.weight_histograms.gradients_every_n_steps=100")  # fmt: skip
BOUNDED = {"OMP_NUM_THREADS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
GROWTH_LIMIT = 0.01
STOPPED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Sample:
    """seconds since the start; kilobytes of memory; files that are open."""

    seconds: float
    memory: int
    files: int


def look(pid: int, seconds: float) -> Sample:
    """A sample of a running process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s*(\d+) kB", status)
    assert found is not None
    return Sample(seconds, int(found[1]), len(os.listdir(f"/proc/{pid}/fd")))


def judge(samples: list[Sample]) -> dict[str, float]:
    """Medians of memory, and files that are always open, of both halves after the warm-up; growth as a share."""
    settled = samples[len(samples) // 3 :]
    early, late = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    before, after = (median(sample.memory for sample in half) for half in (early, late))
    # What is opened and closed again, as pictures are, is now and then in a sample: the fewest are what stays open.
    files = [min(sample.files for sample in half) for half in (early, late)]
    return {
        "samples": len(samples),
        "memory_mb_early": round(before / 1024, 2),
        "memory_mb_late": round(after / 1024, 2),
        "memory_growth": round(after / before - 1, 5),
        "open_files_early": files[0],
        "open_files_late": files[1],
        "open_files_most": max(sample.files for sample in settled),
    }


def soak(folder: Path, minutes: float, every: float, bounds: dict[str, str]) -> tuple[list[Sample], int]:
    """Samples of a training of so many minutes, one each `every` seconds after its first step; its exit status.

    bounds: environment variables of the training.
    """
    place = Place(folder / "run")
    process = Process(place, [*SETTINGS, *LONG, *make_world(folder)], bounds, warm=False)
    while process.status() is None and not place.has_checkpoint():
        time.sleep(0.2)
    samples: list[Sample] = []
    began = told = time.monotonic()
    while process.status() is None and time.monotonic() - began < 60 * minutes:
        samples.append(look(process.pid, time.monotonic() - began))
        if time.monotonic() - told > 60:
            told, last = time.monotonic(), samples[-1]
            print(
                f"{last.seconds / 60:.0f} min: {last.memory / 1024:.1f} MB, {last.files} files open",
                flush=True,
            )
        time.sleep(every)
    if process.status() is None:
        process.send(signal.SIGTERM)
    status = process.wait()
    if status != STOPPED:
        print(place.output.read_text()[-3000:])
    return samples, status


def steps_of(place: Place) -> int:
    """Optimizer steps that the training made."""
    found = re.findall(r"after step (\d+)", place.output.read_text())
    return int(found[-1]) if found else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--as-shipped", action="store_true", help="bound no cache")
    options = parser.parse_args(arguments)
    bounds = {} if options.as_shipped else BOUNDED
    folder = Path(tempfile.mkdtemp(prefix="soak_"))
    try:
        samples, status = soak(folder, options.minutes, options.every, bounds)
        steps = steps_of(Place(folder / "run"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if len(samples) < 12:
        print(f"the training ended with {status} before there was something to see")
        return 1
    result = {"minutes": options.minutes, "steps": steps, "status": status, **judge(samples)}
    print(json.dumps(result))
    flat = result["memory_growth"] < GROWTH_LIMIT and result["open_files_late"] <= result["open_files_early"]
    return int(not flat or status != STOPPED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
