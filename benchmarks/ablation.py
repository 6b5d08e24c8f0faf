"""Measure what each lever adds, alone and together, over seeds: `python -m benchmarks.ablation`.

A lever is some overrides of train.py, or of eval.py on the default's checkpoint: edit the two tables below. Each run
has the folder `<out>/<experiment>/<overrides>/<seed>`; a finished one is not repeated. The split does not depend on the
seed, so that differences to the default are paired by image; their 95% intervals resample images and seeds. The data
set and the feature cache are shared: the median of the training times leaves out the seed that builds the cache.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks import common
from src.report.run_files import read_metrics, read_predictions

# Name -> overrides of train.py; {run}: the default's run folder with the same seed; {lr}, ...: a value of the default.
TRAIN = {
    "default": "",
    "1 block": "model.num_layers_to_train=1",
    "2 blocks": "model.num_layers_to_train=2",
    "4 blocks": "model.num_layers_to_train=4",
    "label smoothing": "model.label_smoothing=0.1",
    "4 views": "callbacks.feature_cache.views=4",
    "best by CIDEr-D": "monitor=val/cider_d",
    "EMA": "callbacks.ema.decay=0.99",
    "encoder lr x 0.3": "model.encoder_lr_factor=0.3",
    "cosine": "model.lr_scheduler.scheduler.cosine=true",
    "lr x 2": "model.optimizer.lr={lr*2}",
    "lr / 2": "model.optimizer.lr={lr*0.5}",
    "batch / 2": "datamodule.batch_size={batch*0.5}",
    "epochs x 2": "trainer.max_epochs={epochs*2}",
    "epochs x 4/3": "trainer.max_epochs={epochs*1.34}",
    "epochs / 2": "trainer.max_epochs={epochs*0.5}",
    "2 captions, epochs x 2": "datamodule.captions_per_image=2 trainer.max_epochs={epochs*2}",
    "batch / 2, 2 captions, epochs x 1.5": (
        "datamodule.batch_size={batch*0.5} datamodule.captions_per_image=2 trainer.max_epochs={epochs*1.5}"
    ),
    "all captions": "datamodule.captions_per_image=null",
    "SCST after default": "model.objective=scst ckpt_path={run} monitor=val/cider_d trainer.max_epochs=5",
    "recipe": "effort=best",
}
EVAL = {
    "greedy": "model.generation.num_beams=1",
    "8 beams": "model.generation.num_beams=8",
    "length penalty 0.8": "model.generation.length_penalty=0.8",
    "length penalty 1.2": "model.generation.length_penalty=1.2",
}
ON_PHOTOS = ("default", "1 block", "2 blocks", "4 blocks", "label smoothing", "4 views", "lr x 2", "recipe")
PHOTOS = ("model=vit_gpt2_tiny", "trainer=default", "datamodule.split_ratios=[0.4,0.15,0.45]", "trainer.max_epochs=8")
QUIET = ("logger=none", "trainer.enable_progress_bar=false", "extras.print_config=false", "zero_shot=false")
MEANS = {"CIDEr-D": "test/cider_d", "BLEU-4": "test/bleu_4", "val loss": "val/loss_best", "test loss": "test/loss"}
COLUMNS = ("CIDEr-D", "difference (95%)", "BLEU-4", "val loss", "test loss", "fit time")


class Ablation:
    """Runs of one experiment. base: the overrides that all share; environment: of their processes."""

    def __init__(self, out: Path, base: Sequence[str], environment: Mapping[str, str]) -> None:
        self.out, self.base, self.environment = out.resolve(), tuple(base), environment
        config = common.compose_config(*base)
        lr, batch = config.model.optimizer.lr, config.datamodule.batch_size
        self.values: dict[str, Any] = {"lr": lr, "batch": batch, "epochs": config.trainer.max_epochs}

    def folder(self, lever: str, seed: int) -> Path:
        """Return the run folder of a lever and seed, named by the overrides."""
        overrides = f"eval {EVAL[lever]}" if lever in EVAL else TRAIN[lever] or "default"
        return self.out / re.sub(r"[^\w.]+", "-", overrides) / str(seed)

    def run(self, lever_and_seed: tuple[str, int]) -> None:
        """Run a lever; one that fails leaves a gap in the table."""
        lever, seed = lever_and_seed
        default = self.folder("default", seed)
        own = fill((TRAIN | EVAL)[lever], self.values | {"run": default})
        entry = ["eval.py", f"ckpt_path={default}"] if lever in EVAL else ["train.py", *self.base]
        run_once(self.folder(lever, seed), [*entry, *own, f"seed={seed}"], self.environment)

    def row(self, lever: str, seeds: Sequence[int]) -> dict[str, Any]:
        """Return the row of a lever, empty where a run of it or of the default is missing."""
        try:
            (runs, cider), (defaults, before) = (self._read(name, seeds) for name in (lever, "default"))
        except FileNotFoundError:
            return {}
        low, high = interval(cider - before)
        values = {name: mean(run.get(key, np.nan) for run in runs) for name, key in MEANS.items()}
        seconds = [median(run.get("time/fit_seconds", 0) for run in found) for found in (runs, defaults)]
        difference = f"{(cider - before).mean():+.3f} ({low:+.3f} to {high:+.3f})"
        return values | {"difference (95%)": difference, "fit time": seconds[0] / seconds[1]}

    def _read(self, lever: str, seeds: Sequence[int]) -> tuple[list[dict[str, float]], np.ndarray]:
        """Return the metrics of each seed, and the CIDEr-D of each test image: (seeds, images)."""
        folders = [self.folder(lever, seed) for seed in seeds]
        tables = [{row.image_id: row.scores for row in read_predictions(one / "predictions.csv")} for one in folders]
        cider = np.array([[table[image_id]["cider_d"] for image_id in sorted(table)] for table in tables])
        return [read_metrics(folder / "metrics.json") for folder in folders], cider


def run_once(folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run train.py or eval.py into a folder unless it holds predictions; a failure is printed."""
    if (folder / "predictions.csv").is_file():
        return
    command = [sys.executable, *command, *QUIET, f"hydra.run.dir={folder}"]
    done = subprocess.run(command, cwd=common.ROOT, env=environment, capture_output=True, text=True)
    outcome = f"failed: {done.stderr.strip().splitlines()[-1:]}" if done.returncode else "done"
    print(f"{folder}: {outcome}", file=sys.stderr, flush=True)


def fill(template: str, values: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a lever: `{lr}` becomes a value, `{lr*2}` twice the value of the same type."""

    def value(found: re.Match[str]) -> str:
        name, _, factor = found[1].partition("*")
        return str(type(values[name])(values[name] * float(factor)) if factor else values[name])

    return re.sub(r"{(.+?)}", value, template).split()


def interval(differences: np.ndarray, samples: int = 2000) -> tuple[float, float]:
    """Return the central 95% of the mean of (seeds, images) over draws of both with replacement."""
    rng = np.random.default_rng(0)
    draws = ([rng.integers(size, size=size) for size in differences.shape] for _ in range(samples))
    low, high = np.percentile([differences[np.ix_(*rows)].mean() for rows in draws], [2.5, 97.5])
    return float(low), float(high)


def experiments(options: dict[str, Any]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Yield name, common overrides and levers of each experiment."""
    for name in options["experiments"]:
        yield name, [f"experiment={name}"], options["levers"] or [*TRAIN, *EVAL]
    if options["photos"]:
        yield "photos", [*common.data_overrides(options["photos"]), *PHOTOS], options["levers"] or ON_PHOTOS


def main() -> None:
    parser = common.plain_parser(__doc__)
    parser.add_argument("--experiments", nargs="*", default=["demo", "demo_medicat"])
    parser.add_argument("--photos", help="also a folder of photographs in a Flickr layout, for the loss")
    parser.add_argument("--levers", nargs="+", choices=[*TRAIN, *EVAL], help="some of the levers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which divide the cores")
    parser.add_argument("--out", type=Path, default=common.ROOT / "logs" / "ablation", help="folder of the runs")
    options = vars(parser.parse_args())
    common.silence()
    threads = str(max(1, (os.cpu_count() or 1) // options["jobs"]))
    seeds, environment = range(options["seeds"]), {**os.environ, "OMP_NUM_THREADS": threads}
    for name, base, levers in experiments(options):
        ablation = Ablation(options["out"] / name, base, environment)
        with ThreadPoolExecutor(options["jobs"]) as pool:
            for group in (["default"], levers):  # some start from the default
                list(pool.map(ablation.run, product(group, seeds)))
        rows = {lever: ablation.row(lever, seeds) for lever in dict.fromkeys(["default", *levers])}
        table = [[lever, *(row.get(column) for column in COLUMNS)] for lever, row in rows.items()]
        common.report(f"{name}, {options['seeds']} seeds", ["lever", *COLUMNS], table, rows)


if __name__ == "__main__":
    main()
