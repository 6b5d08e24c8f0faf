"""What unfreezing more blocks buys: one run for each number of last blocks, as a table for the README.

python -m benchmarks.layers [experiment=demo_medicat] [layers=1,2,4] [log_dir=logs/layers]
"""

import json
import subprocess
import sys
from pathlib import Path

from src.utils.command import parse_command, run_command
from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
HEADER = (
    "| blocks trained of each half | weights | fit | nats/token | BLEU-4 | CIDEr-D (95% interval) |",
    "|---|---|---|---|---|---|",
)


def run_one(experiment: str, blocks: int, log_dir: Path) -> dict[str, float]:
    """Train and score with the last `blocks` of each half; returns metrics.json.

    Raises:
        UserError: the run failed; its own output says why.
    """
    words = [f"experiment={experiment}", f"model.num_layers_to_train={blocks}", f"paths.log_dir={log_dir}"]
    before = set(log_dir.glob("train/runs/*"))
    if subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, stdout=sys.stderr).returncode:
        raise UserError(f"train.py {' '.join(words)} failed; expected a finished run; see its output above")
    (folder,) = set(log_dir.glob("train/runs/*")) - before
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics["weights"] = trained_weights(folder / "checkpoints" / "best.ckpt")
    return metrics


def trained_weights(checkpoint: Path) -> int:
    """How many weights a checkpoint holds."""
    from src.models.checkpoints import read_checkpoint

    return sum(weight.numel() for weight in read_checkpoint(checkpoint)["state_dict"].values())


def table(runs: dict[int, dict[str, float]]) -> str:
    """The runs as Markdown, the untouched base first."""
    base = next(iter(runs.values()))
    lines = [*HEADER, _row("none (zero-shot)", 0, base, "zero_shot/test/")]
    lines += [_row(str(blocks), int(run["weights"]), run, "test/") for blocks, run in runs.items()]
    return "\n".join(lines)


def _row(name: str, weights: int, run: dict[str, float], prefix: str) -> str:
    low, high = run[f"{prefix}cider_d_low"], run[f"{prefix}cider_d_high"]
    cider = f"{run[f'{prefix}cider_d']:.2f} ({low:.2f} to {high:.2f})"
    fit = f"{run['time/fit_seconds']:.0f} s" if weights else "-"
    scores = f"{run[f'{prefix}loss']:.2f} | {run[f'{prefix}bleu_4']:.2f} | {cider}"
    return f"| {name} | {weights:,} | {fit} | {scores} |"


def main(arguments: list[str]) -> None:
    """Read `key=value` arguments, run, print the table."""
    defaults = {"experiment": "demo_medicat", "layers": "1,2,4", "log_dir": "logs/layers"}
    settings = parse_command(arguments, defaults)
    log_dir = ROOT / settings["log_dir"]
    blocks = [int(number) for number in settings["layers"].split(",")]
    print(table({number: run_one(settings["experiment"], number, log_dir) for number in blocks}))


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
