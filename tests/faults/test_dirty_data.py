"""The table of dirty data: every row has its test, every case its row; and pictures that break during a run."""

import ast
import csv
import re

import pytest
from pytorch_lightning import Callback

from src.demo.synthetic.scenes import write_scenes
from tests.datamodule.readers.test_flickr import DIRTY_ROWS
from tests.tasks.running import run_train

ROW = re.compile(r"\| (.+?) \| (.+?) \| (tests/\S+\.py)::(\w+)(?:\[(.+)\])? \|")
CASES = (
    "truncated", "zero bytes", "another kind of file with a picture's name", "wrong extension", "animated GIF",
    "CMYK", "palette", "16-bit", "alpha", "EXIF", "1 x 1 pixel", "30,000 pixels", "30,000 x 30,000",
    "decompression bomb", "picture is missing", "duplicate row", "empty caption", "caption of whitespace",
    "5,000 words", "control characters", "emoji", "right-to-left", "NUL", "BOM", "CRLF", "UTF-16", "Latin-1",
    "wrong delimiter", "wrong header", "unclosed quote", "absolute path", "`..`", "link that leaves", "empty file",
    "one image", "header only", "breaks between check and use, in training",
    "breaks between check and use, in scoring",
)  # fmt: skip


@pytest.fixture(scope="module")
def table(root):
    """Rows (case, what happens, file, test, parameter) of docs/dirty_data.md."""
    lines = (root / "docs" / "dirty_data.md").read_text(encoding="utf-8").splitlines()
    rows = [ROW.fullmatch(line) for line in lines if line.startswith("| ") and not line.startswith("| case")]
    assert all(rows), "a row that is not: case | what happens | tests/file.py::test"
    return [row.groups() for row in rows]


def test_every_row_has_its_test(table, root):
    for case, _, file, test, parameter in table:
        text = (root / file).read_text(encoding="utf-8")
        names = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        assert test in names, f"{case}: {file} has no {test}"
        assert parameter is None or f'"{parameter}"' in text, f"{case}: {test} has no case {parameter}"


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_its_row(table, case):
    assert [row for row in table if case in row[0]]


def test_every_dirty_row_of_a_captions_file_is_told_as_it_is_handled(table):
    told = {parameter: what for _, what, _, _, parameter in table if parameter}
    assert told.keys() == DIRTY_ROWS.keys()
    for case, (_, _, reason) in DIRTY_ROWS.items():
        assert (f"skipped: `{reason}`" in told[case]) == bool(reason), case


class Break(Callback):
    """Cuts off a picture of the train and one of the test part, when all were found to be sound."""

    broken: list[str]

    def on_fit_start(self, trainer, pl_module):
        chosen = [trainer.datamodule.splits[part][0] for part in ("train", "test")]
        for image in chosen:
            with open(image.path, "r+b") as file:
                file.truncate(300)
        Break.broken = [image.image_id for image in chosen]


def test_pictures_that_break_during_a_run_are_told_once_and_counted(tiny_checkpoint, tmp_path, caplog):
    write_scenes(tmp_path / "flickr", 40, size=32)
    folder = tmp_path / "logs" / "run"
    metrics = run_train(
        folder, tiny_checkpoint, tmp_path / "flickr", "trainer.max_epochs=2", "zero_shot=false", "logger=csv",
        "callbacks.feature_cache.enabled=false", "+callbacks.breaks._target_=tests.faults.test_dirty_data.Break",
    )  # fmt: skip
    assert (metrics["data/broken_images"], metrics["data/skipped_rows"]) == (2, 0)
    told = [line for line in caplog.messages if "left out or replaced" in line]
    assert len(told) == 2
    assert all(name in line for name, line in zip(Break.broken, told, strict=True))
    with (folder / "predictions.csv").open() as file:
        captioned = [row["image_id"] for row in csv.DictReader(file)]
    assert len(captioned) == metrics["data/test_images"] - 1
    assert Break.broken[1] not in captioned
