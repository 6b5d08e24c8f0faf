"""One process, two, and two nodes come to the same; when one process fails or is told to stop, all end."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from src.callbacks.feature_cache import SHARD_IMAGES
from tests.tasks.many_processes import NUM_IMAGES
from tests.tasks.running import captions, rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks torch")]
BOTH = pytest.mark.parametrize("name", ["two", "nodes"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases, with their exit statuses and seconds in `told.json`."""
    folder = tmp_path_factory.mktemp("many")
    command = [sys.executable, "-m", "tests.tasks.many_processes", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (folder / "told.json").write_text(done.stdout.splitlines()[-1])
    return folder


def told(folder: Path, name: str) -> tuple[list[int], float]:
    """The exit status of each process of a case, and seconds between the first end and the last."""
    found = json.loads((folder / "told.json").read_text())[name]
    seconds = [seconds for _, seconds in found]
    return [status for status, _ in found], max(seconds) - min(seconds)


def run(folder: Path, name: str) -> Path:
    """The one run folder of a case."""
    (found,) = (folder / name / "logs" / "train" / "runs").iterdir()
    return found


def output(folder: Path, name: str) -> str:
    return (folder / name / "output.log").read_text()


def curve(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(run / "csv" / "metrics.csv") if row.get(name)]


def seen(folder: Path, name: str, part: str) -> dict[tuple[int, int], list[Any]]:
    """(rank, image ids) of each batch of a part, by epoch and step."""
    batches: dict[tuple[int, int], list[Any]] = {}
    for line in (folder / name / "logs" / "seen.txt").read_text().splitlines():
        of, epoch, step, rank, names = json.loads(line)
        if of == part:
            batches.setdefault((epoch, step), []).append((rank, names))
    return batches


def times_seen(folder: Path, name: str, part: str, epoch: int | None = None) -> Counter[str]:
    """How often each image of a part was in a batch."""
    return Counter(
        image
        for (number, _), batches in seen(folder, name, part).items()
        for _, names in batches
        for image in names
        if epoch in (None, number)
    )


@pytest.mark.parametrize("name", ["one", "two", "nodes"])
def test_all_end_well_and_speak_once(folder: Path, name: str) -> None:
    statuses, _ = told(folder, name)
    assert statuses == [0] * len(statuses), output(folder, name)
    text = output(folder, name)
    for once in (f"{NUM_IMAGES} images", "training 462,848 of", "test images", "Run folder:", "Report:"):
        assert text.count(once) == 1, text
    assert "Traceback" not in text


@BOTH
def test_files_are_written_by_one(folder: Path, name: str) -> None:
    def files(name: str) -> set[str]:
        found = run(folder, name)
        return {
            path.relative_to(found).as_posix() for path in found.rglob("*") if "tfevents" not in path.name
        }

    assert files(name) == files("one")


@BOTH
def test_each_image_is_seen_once_in_an_epoch_in_the_same_global_batches(folder: Path, name: str) -> None:
    alone, shared = seen(folder, "one", "train"), seen(folder, name, "train")
    assert len(shared) == len(alone) > 4

    def images(batches: list[Any]) -> list[str]:
        return sorted(image for _, names in batches for image in names)

    assert [images(shared[step]) for step in sorted(shared)] == [
        images(alone[step]) for step in sorted(alone)
    ]
    assert all(sorted(rank for rank, _ in batches) == [0, 1] for batches in shared.values())
    assert set(times_seen(folder, name, "train", epoch=1).values()) == {1}


@BOTH
@pytest.mark.parametrize(("part", "times"), [("val", 2), ("test", 2)])  # two epochs; trained and base
def test_each_image_is_scored_once(folder: Path, name: str, part: str, times: int) -> None:
    scored = times_seen(folder, name, part)
    assert scored == times_seen(folder, "one", part)
    assert set(scored.values()) == {times}
    assert len(scored) % 2 == 1


@BOTH
def test_losses_are_equal_within_floating_point_noise(folder: Path, name: str) -> None:
    for metric in ("train/loss_step", "train/grad_norm", "train/loss", "val/loss"):
        alone = curve(run(folder, "one"), metric)
        assert curve(run(folder, name), metric) == pytest.approx(alone, rel=1e-5), metric
        assert len(set(alone)) == len(alone) >= 2


@BOTH
def test_scores_of_one_checkpoint_are_equal(folder: Path, name: str) -> None:
    alone, shared = (json.loads((run(folder, case) / "metrics.json").read_text()) for case in ("one", name))
    assert shared.keys() == alone.keys()
    assert alone["zero_shot/test/cider_d"] > 0.1
    for key in alone:
        if key == "zero_shot/test/loss":
            assert shared[key] == pytest.approx(alone[key], rel=1e-5)
        elif key.startswith(("zero_shot/", "data/")):
            assert shared[key] == pytest.approx(alone[key], abs=1e-6), key
        elif key.startswith("test/"):  # here the weights differ in their last bits
            assert shared[key] == pytest.approx(alone[key], abs=1e-4), key
    ways = [captions(run(folder, case), "zero_shot_caption") for case in ("one", name)]
    assert ways[0] == ways[1]


def test_a_checkpoint_is_scored_on_two_nodes_as_by_its_own_run(folder: Path) -> None:
    assert told(folder, "eval")[0] == [0, 0], output(folder, "eval")
    (scored,) = (folder / "eval" / "logs" / "eval" / "runs").iterdir()
    shared, alone = (json.loads((path / "metrics.json").read_text()) for path in (scored, run(folder, "one")))
    for name in ("test/cider_d", "test/bleu_4", "data/test_images"):
        assert shared[name] == pytest.approx(alone[name], abs=1e-6), name
    assert shared["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-5)
    assert captions(scored) == captions(run(folder, "one"))


@BOTH
def test_all_build_the_cache(folder: Path, name: str) -> None:
    wrote: Counter[tuple[str, str]] = Counter()
    for path in (folder / name).glob("node*/wrote.txt"):
        for line in path.read_text().splitlines():
            rank, count = line.split()
            wrote[path.parent.name, rank] += int(count)
    alone = sum(
        int(line.split()[1]) for line in (folder / "one" / "node0" / "wrote.txt").read_text().splitlines()
    )
    assert alone > SHARD_IMAGES
    assert {rank for _, rank in wrote} == {"0", "1"}
    nodes = {node for node, _ in wrote}
    assert [sum(count for (of, _), count in wrote.items() if of == node) for node in nodes] == [alone] * len(
        nodes
    )


@pytest.mark.parametrize(
    ("name", "statuses", "words"),
    [
        ("error", [1, 1], ["[rank 1] error: ValueError: the wheel came off", "error: RuntimeError: "]),
        ("killed", [-9, 1], ["[rank 1] error: RuntimeError: "]),
        ("told", [143, 143], ["stopped by SIGTERM; resume with the same command and ckpt_path="]),
        ("launched", [1], ["error: ValueError: the wheel came off"]),
        ("launched other fails", [1], ["[rank 1] error: ValueError: the wheel came off"]),
    ],
)
def test_when_one_ends_all_end(folder: Path, name: str, statuses: list[int], words: list[str]) -> None:
    found, apart = told(folder, name)
    lightning_kills_rank_0 = name == "launched other fails" and found == [-9]
    assert found == statuses or lightning_kills_rank_0, output(folder, name)
    assert apart < 10
    text = output(folder, name)
    assert all(text.count(said) == 1 for said in words), text
    assert "Traceback" not in text
    assert name != "told" or (run(folder, name) / "checkpoints" / "last.ckpt").is_file()
