"""Compare a run before and after self-critical training: `python -m benchmarks.scst <run folder> [overrides]`.

Scores are of greedy captions of the test images; the interval of the difference resamples images. Then: what a step
spends on samples, reward and gradient. The overrides go to train.py.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks import common
from src.metrics.bootstrap import intervals, mean
from src.models import scst
from src.report.run_files import read_metrics, read_predictions

# Words that end no caption: "a man in a".
FUNCTION_WORDS = re.compile(
    r"\b(a|an|the|and|or|but|of|in|on|at|by|to|with|from|for|over|under|near|behind|is|are)\W*$", re.I
)
SETTINGS = (
    "trainer=default",
    "zero_shot=false",
    "model.generation.num_beams=1",
    "logger=csv",
    "metrics.bootstrap_samples=0",
)
SCORES = ("cider_d", "bleu_4", "distinct_fraction", "mean_length")


class StepShares(Callback):
    """Write the fraction of training steps' time that samples and rewards take to `<run folder>/shares.json`."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        module: Any = pl_module
        module.scst.reward = self._timed("reward", module.scst.reward)
        scst.sample_captions = self._timed("samples", scst.sample_captions)

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds["step"] += time.perf_counter() - self.start

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares = {name: seconds / self.seconds["step"] for name, seconds in self.seconds.items()}
        folder = Path(trainer.checkpoint_callback.dirpath).parent  # type: ignore[union-attr, arg-type]
        milliseconds = 1000 * self.seconds["step"] / trainer.global_step
        (folder / "shares.json").write_text(json.dumps(shares | {"step": milliseconds}))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **settings)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def run(entry: str, folder: Path, *overrides: str) -> None:
    """Run an entry with its files in `folder`. Raises CalledProcessError where it fails."""
    command = [sys.executable, entry, *overrides, *SETTINGS, f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=common.ROOT, stdout=sys.stderr, check=True)


def main(first: str, overrides: Sequence[str]) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root:
        folders = {name: Path(root) / name for name in ("before", "after")}
        run("eval.py", folders["before"], f"ckpt_path={first}")
        stage = ("experiment=scst", f"ckpt_path={first}", "+callbacks.shares._target_=benchmarks.scst.StepShares")
        run("train.py", folders["after"], *stage, *overrides)
        rows, cider = [], []
        for name, folder in folders.items():
            metrics, predictions = read_metrics(folder / "metrics.json"), read_predictions(folder / "predictions.csv")
            fragments = sum(bool(FUNCTION_WORDS.search(row.caption)) for row in predictions) / len(predictions)
            rows.append([name, *(metrics[f"test/{score}"] for score in SCORES), fragments])
            cider.append(np.array([row.scores["cider_d"] for row in predictions]))
        shares = json.loads((folders["after"] / "shares.json").read_text())
    low, high = intervals({"cider_d": mean(cider[1] - cider[0])})["cider_d"]
    rest = 1 - shares["samples"] - shares["reward"]
    common.report("", ["", *SCORES, "fragments"], rows, shares)
    print(f"CIDEr-D, after less before: {(cider[1] - cider[0]).mean():.3f} ({low:.3f} to {high:.3f}), paired by image")
    print(
        "a step: {step:.0f} ms; samples {samples:.0%}, reward {reward:.0%}, rest {rest:.0%}".format(**shares, rest=rest)
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
