"""Compare fine-tuning methods by whole runs of train.py: `python -m benchmarks.finetuning`.

Each method has its own peak learning rate; the feature cache is built anew. `--blocks 1,2,4` compares numbers of
trained blocks instead; `--full-size <folder>` makes one step with another model, for its memory alone.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import common
from src.models.checkpoint import read_checkpoint
from src.report.scores import score_table

RATES = {"last_blocks": 3e-3, "cross_attention": 1e-2, "lora": 1e-2, "full": 2e-3}
# One step of two images, and nothing that is not needed for its checkpoint.
ONE_STEP = (
    "trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.num_sanity_val_steps=0", "test=false",
    "datamodule.num_images=30", "datamodule.batch_size=2", "callbacks.feature_cache.enabled=false",
    "~callbacks.caption_samples", "~callbacks.weight_histograms",
)  # fmt: skip


def run_train(*overrides: str) -> dict[str, Any]:
    """Run train.py; return the row of the table. Raises RuntimeError if the run failed."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        cache = f"callbacks.feature_cache.cache_dir={folder}/cache"
        command = [sys.executable, "train.py", *overrides, cache, f"paths.log_dir={folder}/logs"]
        process = subprocess.Popen(command, cwd=common.ROOT, stdout=sys.stderr)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} failed; see its output above")
        (run,) = Path(folder).glob("logs/train/runs/*")
        best = run / "checkpoints" / "best.ckpt"
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        return {
            "weights": sum(weight.numel() for weight in read_checkpoint(best)["state_dict"].values()),
            "checkpoint MB": best.stat().st_size / 1e6,
            "fit s": metrics["time/fit_seconds"],
            "peak GB": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
            "scores": score_table(metrics),
        }


def main() -> None:
    parser = common.plain_parser(__doc__)
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--blocks", default="", help="numbers of last blocks of encoder and decoder, by comma")
    parser.add_argument("--full-size", default="", help="a VisionEncoderDecoder folder: one step, no scores")
    options = parser.parse_args()
    runs = {name: (f"model.train={name}", f"model.optimizer.lr={rate}") for name, rate in RATES.items()}
    if options.blocks:
        runs = {blocks: (f"model.num_layers_to_train={blocks}",) for blocks in options.blocks.split(",")}
    extra = [f"experiment={options.experiment}"]
    if options.full_size:
        extra += [f"model.checkpoint={Path(options.full_size).resolve()}", *ONE_STEP]
    result = {name: run_train(*extra, *overrides) for name, overrides in runs.items()}
    tables = {name: run.pop("scores") for name, run in result.items()}
    columns = ["weights", "checkpoint MB", "fit s", "peak GB"]
    rows = [[name, *run.values(), *tables[name].get("fine-tuned", ())] for name, run in result.items()]
    base = next(iter(tables.values()))
    rows.insert(0, ["none (zero-shot)", *[None] * len(columns), *base.get("base", ())])
    common.report(f"Fine-tuning, {options.experiment}", ["trained", *columns, *base.index], rows, result)


if __name__ == "__main__":
    main()
