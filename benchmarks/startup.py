"""Seconds until an entry answers: `python -m benchmarks.startup`.

Each command runs in a process of its own, `rounds` times in turn; the median counts. The last is a whole run
of the tiny model on drawn scenes, one step, no test: how long until training has begun and ended.

    rounds=5
"""

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.common import medians, print_report
from src.utils.command import parse_command, run_command

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "train.py --help": ["train.py", "--help"],
    "train.py --cfg job": ["train.py", "--cfg", "job"],
    "eval.py --cfg job": ["eval.py", "--cfg", "job", "ckpt_path=x"],
    "import torch, transformers, lightning": ["-c", "import torch, transformers, pytorch_lightning"],
    "train.py debug=fdr": ["train.py", "experiment=demo", "debug=fdr"],
}


def main(arguments: list[str]) -> None:
    """Measure and print."""
    settings = parse_command(arguments, {"rounds": 5})
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(settings["rounds"]):
            for name, words in COMMANDS.items():
                extra = [f"paths.log_dir={folder}"] if "debug=fdr" in words else []
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, *words, *extra], cwd=ROOT, check=True, capture_output=True, timeout=600
                )
                seconds[name].append(time.perf_counter() - start)
    found = medians(seconds)
    rows = [[name, f"{value:.2f}"] for name, value in found.items()]
    print_report("Start-up", ["command", "seconds"], rows, {"seconds": found})


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
