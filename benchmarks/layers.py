"""What unfreezing more blocks buys: one run for each number of last blocks, as a table for the README.

python -m benchmarks.layers [experiment=demo_medicat] [layers=1,2,4] [log_dir=logs/layers]
"""

import sys
from collections.abc import Mapping

from benchmarks.finished_runs import ROOT, FinishedRun, cider_cell, markdown, run_train
from src.utils.command import parse_command, run_command

HEADER = ("blocks trained of each half", "weights", "fit", "nats/token", "BLEU-4", "CIDEr-D (95% interval)")


def table(runs: Mapping[int, FinishedRun]) -> str:
    """The runs as Markdown, the untouched base first."""
    base = next(iter(runs.values()))
    rows = [["none (zero-shot)", "0", "-", *_scores(base, "zero_shot/test/")]]
    for blocks, run in runs.items():
        seconds = f"{run.metrics['time/fit_seconds']:.0f} s"
        rows.append([str(blocks), f"{run.weights:,}", seconds, *_scores(run, "test/")])
    return markdown(HEADER, rows)


def _scores(run: FinishedRun, prefix: str) -> list[str]:
    found = run.metrics
    return [f"{found[f'{prefix}loss']:.2f}", f"{found[f'{prefix}bleu_4']:.2f}", cider_cell(found, prefix)]


def main(arguments: list[str]) -> None:
    """Read `key=value` arguments, run, print the table."""
    defaults = {"experiment": "demo_medicat", "layers": "1,2,4", "log_dir": "logs/layers"}
    settings = parse_command(arguments, defaults)
    words, log_dir = [f"experiment={settings['experiment']}"], ROOT / settings["log_dir"]
    runs = {
        blocks: run_train([*words, f"model.num_layers_to_train={blocks}"], log_dir)
        for blocks in map(int, settings["layers"].split(","))
    }
    print(table(runs))


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
