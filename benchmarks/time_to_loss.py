"""Wall-clock until the same validation loss: `python -m benchmarks.time_to_loss`.

    seq2seq_trainer_fp32, seq2seq_trainer_bf16   transformers' Seq2SeqTrainer
    ours_fp32, ours_bf16                         this project with its feature cache

The same on both sides: checkpoint, blocks that train, images, captions in a step, epochs, AdamW, peak learning
rate, linear schedule with 5% warm-up, weight decay of matrices, clipping at norm 1. The Trainer gets one row per
caption, shuffled, padded to the longest of its batch, its picture opened and handed to the image processor when
the row is read, as transformers' guides do it. `pixels kept` is its time without what reading a picture again
took, as if memory had room for the pixels of all images (0.6 MB each at full size).

What the clock counts: from files on disk to the step that reaches the target. That is all of `fit` for ours, the
feature cache included, which is built anew in every run; `train` for the Trainer. What it does not: loading the
model, reading the captions file, and the validation losses. These are taken at the same steps of every run by one
and the same code, in fp32 (`Judge`).

The target is one number for a data set: the highest of all runs' lowest validation losses, so the lowest that
every run of every way reached within the epochs. A run's time is that of its first measurement at or below it.
Runs take turns, each repetition with a seed of its own for the order of the data, ours in one process and the
Trainer in a second one; the median counts.
`ratio` is the faster Seq2SeqTrainer over the faster of ours, `ratio_pixels_kept` the same with pixels kept.

    checkpoint=   a VisionEncoderDecoder folder; the shipped tiny model
    data=drawn,flickr8k   drawn scenes, and photographs with five captions each
    data_dir=     the photographs, in a Flickr layout
    drawn_images=600
    batch_size=16 images in a step of ours; the Trainer gets as many captions in rows
    epochs=4
    measurements=25   validation losses of a run
    lr=0.001      the tiny model's own
    repetitions=3
    only=         one or several of the ways, by comma
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.apart import Apart
from benchmarks.common import FLICKR, chosen, print_report, quiet
from benchmarks.product import ROOT
from benchmarks.races import WAYS, Point, Race
from src.utils.command import parse_command, run_command

DEFAULTS = {
    "checkpoint": str(ROOT / "src" / "demo" / "vit_gpt2_tiny"), "data": "drawn,flickr8k",
    "data_dir": str(FLICKR), "drawn_images": 600, "batch_size": 16, "epochs": 4, "measurements": 25,
    "lr": 1e-3, "repetitions": 3, "only": "",
}  # fmt: skip
DATA = ("drawn", "flickr8k")


@dataclass(frozen=True)
class Outcome:
    """What came out for one data set: all by way, medians over the repetitions.

    target: nats per token. seconds, steps: until the target. kept: seconds with pixels kept in memory.
    reached: the loss that was measured there.
    lowest: of a whole run. ahead: seconds before the first step, the feature cache's.
    """

    target: float
    seconds: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    reached: dict[str, float] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict)
    ahead: dict[str, float] = field(default_factory=dict)


def judge_runs(runs: Mapping[str, Sequence[Sequence[Point]]]) -> Outcome:
    """The target that every run reached, and when each way did: runs[way] holds the points of each repetition."""
    target = max(min(point.loss for point in run) for tries in runs.values() for run in tries)
    found = Outcome(target)
    for way, tries in runs.items():
        hits = [next(point for point in run if point.loss <= target) for run in tries]
        found.seconds[way] = statistics.median(point.seconds for point in hits)
        found.kept[way] = statistics.median(point.seconds - point.pictures for point in hits)
        found.steps[way] = statistics.median(point.step for point in hits)
        found.reached[way] = statistics.median(point.loss for point in hits)
        found.lowest[way] = statistics.median(min(point.loss for point in run) for run in tries)
        found.ahead[way] = statistics.median(run[0].seconds for run in tries)
    return found


def ratio(seconds: Mapping[str, float], kind: str = "") -> float | None:
    """The fastest Seq2SeqTrainer over the fastest of ours, of one precision or of all; None without both."""
    theirs = [value for way, value in seconds.items() if way.startswith("seq2seq") and way.endswith(kind)]
    ours = [value for way, value in seconds.items() if way.startswith("ours") and way.endswith(kind)]
    return min(theirs) / min(ours) if theirs and ours else None


def measure(settings: dict[str, Any], data: str, ways: Sequence[str]) -> Outcome:
    """All runs on one data set, in turn."""
    runs: dict[str, list[list[Point]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        races = {side: Apart(Race, settings, data, f"{folder}/{side}") for side in ("seq2seq", "ours")}
        for turn in range(settings["repetitions"]):
            for way in ways:
                run = races[way.partition("_")[0]].call("run", way, turn)
                runs[way].append(run)
                text = f"{len(run)} losses from {run[0].loss:.4f}, {run[-1].seconds:.1f} s in all"
                print(f"{data} {turn + 1}  {way}: {text}", file=sys.stderr, flush=True)
        for race in races.values():
            race.close()
    return judge_runs(runs)


def report(outcomes: Mapping[str, Outcome]) -> None:
    """Print the table and the last line."""
    rows = [
        [
            data,
            way,
            seconds,
            found.kept[way],
            found.ahead[way],
            int(found.steps[way]),
            found.reached[way],
            found.lowest[way],
        ]
        for data, found in outcomes.items()
        for way, seconds in found.seconds.items()
    ]
    targets = {data: found.target for data, found in outcomes.items()}
    told = "; ".join(f"{data} {target:.4f}" for data, target in targets.items())
    header = [
        "data",
        "way",
        "seconds",
        "pixels kept",
        "before step 1",
        "steps",
        "loss reached",
        "lowest loss",
    ]
    print_report(
        f"Time to the same validation loss (nats/token): {told}",
        header,
        rows,
        {
            "seconds": {data: found.seconds for data, found in outcomes.items()},
            "seconds_pixels_kept": {data: found.kept for data, found in outcomes.items()},
            "ratio": {data: ratio(found.seconds) for data, found in outcomes.items()},
            "ratio_pixels_kept": {data: ratio(found.kept) for data, found in outcomes.items()},
            "ratio_fp32": {data: ratio(found.seconds, "fp32") for data, found in outcomes.items()},
            "ratio_bf16": {data: ratio(found.seconds, "bf16") for data, found in outcomes.items()},
            "target": targets,
            "reached": {data: found.reached for data, found in outcomes.items()},
            "steps": {data: found.steps for data, found in outcomes.items()},
        },
    )


def main(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        UserError: an unknown argument, way or data set.
    """
    settings = parse_command(arguments, DEFAULTS)
    ways = chosen("only", settings["only"], WAYS)
    data = chosen("data", settings["data"], DATA)
    with quiet():
        outcomes = {name: measure(settings, name, ways) for name in data}
    report(outcomes)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
