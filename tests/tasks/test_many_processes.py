"""One process, two, and two nodes give the same; when one process fails or gets a stop signal, all end."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.many_processes import NUM_IMAGES
from tests.tasks.running import captions, rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks torch")]
BOTH = pytest.mark.parametrize("name", ["two", "nodes"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases, with their exit statuses and seconds in `ends.json`."""
    folder, left = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("tmp")
    command = [sys.executable, "-m", "tests.tasks.many_processes", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(left)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not list(left.glob("captioner-rank-*"))
    (folder / "ends.json").write_text(done.stdout.splitlines()[-1])
    return folder


def end(folder: Path, name: str) -> tuple[list[int], float]:
    """Return the exit status of each process of a case, and seconds between the first end and the last."""
    found = json.loads((folder / "ends.json").read_text())[name]
    seconds = [seconds for _, seconds in found]
    return [status for status, _ in found], max(seconds) - min(seconds)


def run(folder: Path, name: str, task: str = "train") -> Path:
    """Return the one run folder of a case."""
    (found,) = (folder / name / "logs" / task / "runs").iterdir()
    return found


def metrics(folder: Path, name: str, task: str = "train") -> dict[str, float]:
    return json.loads((run(folder, name, task) / "metrics.json").read_text())


def output(folder: Path, name: str) -> str:
    return (folder / name / "output.log").read_text()


def curve(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(run / "csv" / "metrics.csv") if row.get(name)]


def seen(folder: Path, name: str, split: str) -> dict[tuple[int, int], list[Any]]:
    """Return (rank, image ids) of each batch of a split, by epoch and step."""
    batches: dict[tuple[int, int], list[Any]] = {}
    for line in (folder / name / "logs" / "seen.txt").read_text().splitlines():
        of, epoch, step, rank, names = json.loads(line)
        if of == split:
            batches.setdefault((epoch, step), []).append((rank, names))
    return dict(sorted(batches.items()))


def images(batches: list[Any]) -> list[str]:
    return sorted(image for _, names in batches for image in names)


@pytest.mark.parametrize("name", ["one", "two", "nodes"])
def test_all_end_well_and_log_once(folder: Path, name: str) -> None:
    statuses, _ = end(folder, name)
    assert statuses == [0] * len(statuses), output(folder, name)
    text = output(folder, name)
    for once in (f"{NUM_IMAGES} images", "462,848 train (", "epoch 2 of 2", "report    "):
        assert text.count(once) == 1, text
    assert "Traceback" not in text


@BOTH
def test_files_are_written_by_one(folder: Path, name: str) -> None:
    def files(name: str) -> set[str]:
        found = run(folder, name)
        return {path.relative_to(found).as_posix() for path in found.rglob("*") if "events" not in path.name}

    assert files(name) == files("one")


@BOTH
def test_each_image_is_seen_once_in_an_epoch_in_the_same_global_batches(folder: Path, name: str) -> None:
    alone, shared = seen(folder, "one", "train"), seen(folder, name, "train")
    assert len(shared) == len(alone) > 4
    assert [images(batches) for batches in shared.values()] == [images(batches) for batches in alone.values()]
    assert all(sorted(rank for rank, _ in batches) == [0, 1] for batches in shared.values())
    second = [image for (epoch, _), batches in shared.items() if epoch == 1 for image in images(batches)]
    assert len(second) == len(set(second))


@BOTH
@pytest.mark.parametrize("split", ["val", "test"])
def test_each_image_is_scored_once(folder: Path, name: str, split: str) -> None:
    counts = [
        Counter(image for batches in seen(folder, case, split).values() for image in images(batches))
        for case in (name, "one")
    ]
    assert counts[0] == counts[1]
    assert set(counts[0].values()) == {2}  # two epochs; trained and base
    assert len(counts[0]) % 2 == 1


@BOTH
def test_losses_are_equal_within_floating_point_noise(folder: Path, name: str) -> None:
    for metric in ("train/loss_step", "train/grad_norm", "train/loss", "val/loss"):
        alone = curve(run(folder, "one"), metric)
        assert curve(run(folder, name), metric) == pytest.approx(alone, rel=1e-5), metric
        assert len(set(alone)) == len(alone) >= 2


@BOTH
def test_scores_of_one_checkpoint_are_equal(folder: Path, name: str) -> None:
    alone, shared = metrics(folder, "one"), metrics(folder, name)
    assert shared.keys() == alone.keys()
    assert alone["zero_shot/test/cider_d"] > 0.1
    assert shared["zero_shot/test/loss"] == pytest.approx(alone["zero_shot/test/loss"], rel=1e-5)
    for key in alone:
        if key.startswith(("zero_shot/", "data/", "test/")):  # the trained weights differ in their last bits
            tolerance = 1e-4 if key.startswith("test/") or key.endswith("/loss") else 1e-6
            assert shared[key] == pytest.approx(alone[key], abs=tolerance), key
    column = "zero_shot_caption"
    assert captions(run(folder, name), column) == captions(run(folder, "one"), column)


def test_a_checkpoint_is_scored_on_two_nodes_as_by_its_own_run(folder: Path) -> None:
    assert end(folder, "eval")[0] == [0, 0], output(folder, "eval")
    shared, alone = metrics(folder, "eval", "eval"), metrics(folder, "one")
    for name in ("test/cider_d", "test/bleu_4", "data/test_images"):
        assert shared[name] == pytest.approx(alone[name], abs=1e-6), name
    assert shared["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-5)
    assert captions(run(folder, "eval", "eval")) == captions(run(folder, "one"))


@pytest.mark.parametrize(
    ("name", "statuses", "messages"),
    [
        ("error", [1, 1], ["[rank 1] error: ValueError: the wheel came off", "error: RuntimeError: "]),
        ("killed", [-9, 1], ["[rank 1] error: RuntimeError: "]),
        ("stopped", [143, 143], ["stopped by SIGTERM; resume with the same command and ckpt_path="]),
        ("launched", [1], ["[rank 1] error: ValueError: the wheel came off"]),
    ],
)
def test_when_one_ends_all_end(folder: Path, name: str, statuses: list[int], messages: list[str]) -> None:
    found, apart = end(folder, name)
    lightning_kills_rank_0 = name == "launched" and found == [-9]
    assert found == statuses or lightning_kills_rank_0, output(folder, name)
    assert apart < 10
    text = output(folder, name)
    assert all(text.count(message) == 1 for message in messages), text
    assert "Traceback" not in text
    assert name != "stopped" or (run(folder, name) / "checkpoints" / "last.ckpt").is_file()
