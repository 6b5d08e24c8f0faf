"""The same training in one process, in two, and on two nodes; and what becomes of two when one fails.

    python -m tests.tasks.many_processes FOLDER

Leaves a folder per case with its log and its run, and prints a line of JSON: for each case, exit status and
seconds of each process. Each is a fork that becomes `train.py`, which saves the seconds of the imports, in the
environment that torchrun gives its workers; "launched" is started by Lightning.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process with threads would hang

import argparse
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.training import SETTINGS, Place, Process, import_all
from tests.tasks.watching import WATCHED, misfortune

PARTS = "datamodule.split_ratios=[0.6,0.2,0.2]"
MORE = ("datamodule.captions_per_image=null", "trainer.max_epochs=2", "callbacks.feature_cache.views=4",
        "callbacks.caption_samples.max_images=100", "datamodule.augment=false", "zero_shot=true", PARTS)  # fmt: skip
TOGETHER = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "datamodule.batch_size=4")
ALONE = ("trainer=default", "datamodule.batch_size=8")
ONE_NODE = ("trainer.devices=2",)
TWO_NODES = ("trainer.devices=1", "trainer.num_nodes=2")
NUM_IMAGES = 43  # odd numbers in every part, and batches that two processes cannot share evenly
HANGS = 240  # seconds


@dataclass
class Case(Place):
    """A place where each node has a frozen backbone cache of its own."""

    def settings(self) -> list[str]:
        """The settings that name the place."""
        return [
            f"paths.log_dir={self.folder / 'logs'}",
            "callbacks.feature_cache.cache_dir=${oc.env:NODE_CACHE}",
        ]

    entry: str = "train.py"

    def start(self, words: Sequence[str], node: int = 0, **environment: object) -> Process:
        """A process of the case."""
        cache = self.folder / f"node{node}" / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        plain = {name: str(value) for name, value in {"NODE_CACHE": cache, **environment}.items()}
        return Process(self, words, plain, warm=True, entry=self.entry)


def world(nodes: int) -> list[tuple[int, dict[str, object]]]:
    """The node of each of two processes, and what torchrun puts into their environments."""
    port = _free_port()
    return [
        (
            rank if nodes == 2 else 0,
            {
                "RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0 if nodes == 2 else rank, "LOCAL_WORLD_SIZE": 2 // nodes,
                "GROUP_RANK": rank if nodes == 2 else 0, "GROUP_WORLD_SIZE": nodes, "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0,
                "TORCHELASTIC_USE_AGENT_STORE": "False",
            },
        )
        for rank in (0, 1)
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(case: Case, words: Sequence[str], nodes: int = 2) -> list[tuple[int, float]]:
    """Exit status and seconds of each of two processes; those that hang are killed."""
    places = ONE_NODE if nodes == 1 else TWO_NODES
    return wait([case.start([*words, *TOGETHER, *places], node, **about) for node, about in world(nodes)])


def wait(processes: Sequence[Process]) -> list[tuple[int, float]]:
    """Exit status and seconds of each; those that hang are killed."""
    began, ended = time.monotonic(), dict[int, float]()
    while len(ended) < len(processes):
        for number, process in enumerate(processes):
            if number not in ended and process.status() is not None:
                ended[number] = time.monotonic() - began
        if time.monotonic() - began > HANGS:
            for process in processes:
                process.kill()
        time.sleep(0.02)
    return [(process.wait(), round(ended[number], 2)) for number, process in enumerate(processes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    import_all()
    from src.demo.synthetic.datamodules import write_scenes

    write_scenes(folder / "flickr", NUM_IMAGES, size=48)
    base = [*SETTINGS, *MORE, *WATCHED]
    words = [*base, f"datamodule.data_dir={folder / 'flickr'}"]
    short = [*words, "test=false", "trainer.max_epochs=1"]
    told: dict[str, list[tuple[int, float]]] = {}

    def case(name: str) -> Case:
        return Case(folder / name)

    told["one"] = wait([case("one").start([*words, *ALONE])])
    told["two"] = together(case("two"), words, nodes=1)
    told["nodes"] = together(case("nodes"), words)
    (best,) = folder.glob("one/logs/train/runs/*/checkpoints/best.ckpt")
    scored = [*(word for word in SETTINGS if word.startswith(("metrics.", "extras."))), f"ckpt_path={best}"]
    bare = ["zero_shot=false", "~callbacks.rich_progress_bar", "trainer.enable_progress_bar=false"]
    told["eval"] = together(Case(folder / "eval", "eval.py"), [*scored, *bare])
    told["error"] = together(case("error"), [*short, *misfortune(1, "error")])
    told["killed"] = together(case("killed"), [*short, *misfortune(0, "SIGKILL")])
    told["told"] = together(case("told"), [*short, *misfortune(1, "SIGTERM")])
    launched = [*short, *TOGETHER, *ONE_NODE, *misfortune(0, "error")]
    told["launched"] = wait([case("launched").start(launched)])
    launched = [*short, *TOGETHER, *ONE_NODE, *misfortune(1, "error")]
    told["launched other fails"] = wait([case("launched other fails").start(launched)])
    print(json.dumps(told))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
