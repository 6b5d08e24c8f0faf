"""The same training in one process, in two, and on two nodes; and how two end when one fails.

    python -m tests.tasks.many_processes FOLDER

Leaves a folder per case with its log and its run, and prints a line of JSON: for each case, exit status and
seconds of each process. Each is a fork that becomes `train.py`, which saves the seconds of the imports, in the
environment that torchrun gives its workers; "launched" is started by Lightning.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process with threads would hang

import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.training import SETTINGS, Place, Process, import_all
from tests.tasks.watching import WATCHED, failure

MORE = ("datamodule.captions_per_image=null", "trainer.max_epochs=2", "callbacks.feature_cache.views=4",
        "callbacks.caption_samples.max_images=100", "datamodule.augment=false", "zero_shot=true",
        "datamodule.split_ratios=[0.6,0.2,0.2]")  # fmt: skip
TOGETHER = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "datamodule.batch_size=4")
ALONE = ("trainer=default", "datamodule.batch_size=8")
ONE_NODE = ("trainer.devices=2",)
TWO_NODES = ("trainer.devices=1", "trainer.num_nodes=2")
NUM_IMAGES = 43  # odd numbers in every split, and batches that two processes cannot share evenly
TIMEOUT = 240  # seconds


@dataclass
class Case(Place):
    """A place where each node has a feature cache of its own."""

    entry: str = "train.py"

    def settings(self) -> list[str]:
        cache = "callbacks.feature_cache.cache_dir=${oc.env:NODE_CACHE}"
        return [f"paths.log_dir={self.folder / 'logs'}", cache]

    def start(self, overrides: Sequence[str], node: int = 0, **environment: object) -> Process:
        cache = self.folder / f"node{node}" / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        plain = {name: str(value) for name, value in {"NODE_CACHE": cache, **environment}.items()}
        return Process(self, overrides, plain, entry=self.entry)


def world(nodes: int) -> list[dict[str, object]]:
    """Return what torchrun puts into the environments of two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        {
            "RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0 if nodes == 2 else rank, "LOCAL_WORLD_SIZE": 2 // nodes,
            "GROUP_RANK": rank if nodes == 2 else 0, "GROUP_WORLD_SIZE": nodes, "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0,
            "TORCHELASTIC_USE_AGENT_STORE": "False",
        }
        for rank in (0, 1)
    ]  # fmt: skip


def together(case: Case, overrides: Sequence[str], nodes: int = 2) -> list[tuple[int, float]]:
    """Return exit status and seconds of each of two processes; those that hang are killed."""
    overrides = [*overrides, *TOGETHER, *(ONE_NODE if nodes == 1 else TWO_NODES)]
    return wait([case.start(overrides, int(about["GROUP_RANK"]), **about) for about in world(nodes)])


def wait(processes: Sequence[Process]) -> list[tuple[int, float]]:
    """Return exit status and seconds of each; those that hang are killed."""
    began, ended = time.monotonic(), dict[int, float]()
    while len(ended) < len(processes):
        for number, process in enumerate(processes):
            if number not in ended and process.status() is not None:
                ended[number] = time.monotonic() - began
        if time.monotonic() - began > TIMEOUT:
            for process in processes:
                process.kill()
        time.sleep(0.02)
    return [(process.wait(), round(ended[number], 2)) for number, process in enumerate(processes)]


def main() -> None:
    folder = Path(sys.argv[1])
    import_all()
    from src.demo.synthetic.datamodules import write_scenes

    write_scenes(folder / "flickr", NUM_IMAGES, size=48)
    full = [*SETTINGS, *MORE, *WATCHED, f"datamodule.data_dir={folder / 'flickr'}"]
    short = [*full, "test=false", "trainer.max_epochs=1"]

    def case(name: str, entry: str = "train.py") -> Case:
        return Case(folder / name, entry)

    ends = {
        "one": wait([case("one").start([*full, *ALONE])]),
        "two": together(case("two"), full, nodes=1),
        "nodes": together(case("nodes"), full),
    }
    (best,) = folder.glob("one/logs/train/runs/*/checkpoints/best.ckpt")
    scored = [one for one in SETTINGS if one.startswith(("metrics.", "extras."))]
    scored += ["zero_shot=false", "~callbacks.progress_bar", "trainer.enable_progress_bar=false"]
    ends["eval"] = together(case("eval", "eval.py"), [f"ckpt_path={best}", *scored])
    for name, rank, what in (("error", 1, "error"), ("killed", 0, "SIGKILL"), ("stopped", 1, "SIGTERM")):
        ends[name] = together(case(name), [*short, *failure(rank, what)])
    ends["launched"] = wait([case("launched").start([*short, *TOGETHER, *ONE_NODE, *failure(1, "error")])])
    print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()
