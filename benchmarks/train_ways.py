"""The four ways to train, `model.train=`, one run each: `python -m benchmarks.train_ways`.

What is trained, how large a checkpoint it makes, how long `fit` takes, the most memory that the whole run had,
and what comes out on the test images. Each way has its own peak learning rate; all else is the experiment's.
The feature cache, where a way has a frozen backbone, is built anew and is part of the fit. Prints a Markdown table for the
README, then one line of JSON.

    experiment=demo
    last_blocks=0.003      peak learning rate of each way; 0 leaves the way out
    cross_attention=0.01
    lora=0.01
    full=0.002
    log_dir=logs/train_ways
    full_size=    a VisionEncoderDecoder folder: instead of whole runs one step of each way with that model,
                  and no scores: its trained weights, checkpoint and memory
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.finished_runs import ROOT, FinishedRun, cider_cell, markdown, run_train
from src.utils.command import parse_command, run_command
from src.utils.errors import UserError

RATES = {"last_blocks": 3e-3, "cross_attention": 1e-2, "lora": 1e-2, "full": 2e-3}
DEFAULTS: dict[str, Any] = {
    "experiment": "demo", **RATES, "log_dir": "logs/train_ways", "full_size": "",
}  # fmt: skip
HEADER = (
    "`model.train=`", "learning rate", "weights", "checkpoint", "fit", "peak memory", "nats/token",
    "CIDEr-D (95% interval)",
)  # fmt: skip
# One step of two pictures, and nothing that is not needed for its checkpoint.
ONE_STEP = (
    "trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.num_sanity_val_steps=0", "test=false",
    "datamodule.num_images=30", "datamodule.batch_size=2", "callbacks.feature_cache.enabled=false",
    "~callbacks.caption_samples", "~callbacks.weight_histograms",
)  # fmt: skip


def words_for(way: str, settings: Mapping[str, Any], scratch: str) -> list[str]:
    """train.py's arguments for one way; `scratch` is a folder of this run alone."""
    words = [f"experiment={settings['experiment']}", f"model.train={way}"]
    words += [f"model.optimizer.lr={settings[way]}", f"callbacks.feature_cache.cache_dir={scratch}/cache"]
    if settings["full_size"]:
        folder = Path(settings["full_size"]).resolve()
        words += [f"model.checkpoint={folder}", f"paths.data_dir={scratch}/data", *ONE_STEP]
    return words


def table(runs: Mapping[str, FinishedRun], rates: Mapping[str, float]) -> str:
    """The runs as Markdown, the untouched base first where it was scored."""
    rows = []
    base = next(iter(runs.values())).metrics
    if "zero_shot/test/loss" in base:
        scores = f"{base['zero_shot/test/loss']:.2f}", cider_cell(base, "zero_shot/test/")
        rows.append(["none (zero-shot)", "-", "0", "-", "-", "-", *scores])
    for way, run in runs.items():
        found = run.metrics
        row = [way, f"{rates[way]:g}", f"{run.weights:,}", f"{run.checkpoint_mb:.1f} MB"]
        row += [f"{found['time/fit_seconds']:.0f} s", f"{run.peak_gb:.2f} GB"]
        if "test/loss" in found:
            row += [f"{found['test/loss']:.2f}", cider_cell(found, "test/")]
        rows.append(row + ["-"] * (len(HEADER) - len(row)))
    return markdown(HEADER, rows)


def result(runs: Mapping[str, FinishedRun], rates: Mapping[str, float]) -> dict[str, Any]:
    """What the last line holds, by way; `loss_fell` compares the test loss with the untouched base's."""
    found: dict[str, Any] = {}
    for way, run in runs.items():
        metrics = run.metrics
        found[way] = {
            "learning_rate": rates[way],
            "weights": run.weights,
            "checkpoint_mb": run.checkpoint_mb,
            "fit_seconds": metrics["time/fit_seconds"],
            "peak_gb": run.peak_gb,
        }
        if "test/loss" in metrics:
            scores = {
                name: metrics[f"test/{name}"] for name in ("loss", "cider_d", "cider_d_low", "cider_d_high")
            }
            found[way] |= scores | {"loss_fell": metrics["test/loss"] < metrics["zero_shot/test/loss"]}
    return found


def main(arguments: list[str]) -> None:
    """Run and print.

    Raises:
        UserError: an unknown argument, no way left, or a run that failed.
    """
    settings = parse_command(arguments, DEFAULTS)
    rates = {way: settings[way] for way in RATES if settings[way] > 0}
    if not rates:
        raise UserError("every way has the learning rate 0; expected one to run; set lora=0.01")
    runs = {}
    for way in rates:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            runs[way] = run_train(words_for(way, settings, scratch), ROOT / settings["log_dir"])
    print(table(runs, rates))
    print(json.dumps({"ways": result(runs, rates), "full_size": bool(settings["full_size"])}), flush=True)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
