"""Compare a run before and after self-critical training: `python -m benchmarks.scst <run folder> [overrides]`.

Scores are of greedy captions of the test images; intervals of the differences are paired by image. Then: what a step
spends on samples, reward and gradient. The overrides go to train.py.
"""

import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks import common
from benchmarks.ablation import run_once
from src.models import scst
from src.report.run_files import read_metrics, read_predictions
from src.runs import compare

# Words that end no caption: "a man in a".
FUNCTION_WORDS = re.compile(
    r"\b(a|an|the|and|or|but|of|in|on|at|by|to|with|from|for|over|under|near|behind|is|are)\W*$", re.I
)
SCORES = ("distinct_fraction", "mean_length")


class StepShares(Callback):
    """Write the fraction of training steps' time that samples and rewards take to `<run folder>/shares.json`."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        module: Any = pl_module
        module.scst.reward = self._clock("reward")(module.scst.reward)
        scst.sample_captions = self._clock("samples")(scst.sample_captions)

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds["step"] += time.perf_counter() - self.start

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares = {name: seconds / self.seconds["step"] for name, seconds in self.seconds.items()}
        folder = Path(trainer.checkpoint_callback.dirpath).parent  # type: ignore[union-attr, arg-type]
        milliseconds = 1000 * self.seconds["step"] / trainer.global_step
        (folder / "shares.json").write_text(json.dumps(shares | {"step": milliseconds}))

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def main(first: str, overrides: Sequence[str]) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root:
        folders = {name: Path(root) / name for name in ("before", "after")}
        stage = ["train.py", "experiment=scst", "+callbacks.shares._target_=benchmarks.scst.StepShares", *overrides]
        for name, command in {"before": ["eval.py"], "after": stage}.items():
            settings = ("trainer=default", "model.generation.num_beams=1", f"ckpt_path={first}")
            run_once(folders[name], [*command, *settings], os.environ)
        rows = []
        for name, folder in folders.items():
            metrics, predictions = read_metrics(folder / "metrics.json"), read_predictions(folder / "predictions.csv")
            fragments = sum(bool(FUNCTION_WORDS.search(row.caption)) for row in predictions) / len(predictions)
            rows.append([name, *(metrics[f"test/{score}"] for score in SCORES), fragments])
        shares = json.loads((folders["after"] / "shares.json").read_text())
        print(compare([*folders.values()]).set_axis([*folders, "difference"], axis="columns").to_string())
    common.report("", ["", *SCORES, "fragments"], rows, shares)
    rest = 1 - shares["samples"] - shares["reward"]
    print("a step: {step:.0f} ms; samples {samples:.0%}, reward {reward:.0%}, rest {0:.0%}".format(rest, **shares))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
