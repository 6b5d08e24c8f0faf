"""The command that captions files: a row for each picture, broken ones told and left out."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src import predict as command
from src.captioner import Captioner
from src.predict import choose_format, main, open_table
from src.utils.command import run_command
from src.utils.errors import UserError


@pytest.fixture(scope="module")
def photos(flickr_folder, tmp_path_factory) -> Path:
    """Ten pictures, two of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((flickr_folder / "Images").iterdir())[:8]:
        shutil.copy(path, folder)
    (folder / "a_cut.jpg").write_bytes(next(folder.iterdir()).read_bytes()[:150])
    (folder / "z_text.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def expected(photos, tiny_checkpoint) -> dict[str, str]:
    good = sorted(path for path in photos.iterdir() if path.name[0] == "p")
    captioner = Captioner.from_checkpoint(tiny_checkpoint, max_length=8)
    return dict(zip([path.name for path in good], captioner.caption(good), strict=True))


def call(*words: object) -> int:
    return main([str(word) for word in words])


def rows(text: str) -> dict[str, str]:
    return {row["image_id"]: row["caption"] for row in csv.DictReader(io.StringIO(text))}


def test_a_folder_with_two_broken_files_on_standard_output(photos, tiny_checkpoint, expected, capsys):
    status = call(photos, f"checkpoint={tiny_checkpoint}", "max_length=8", "batch_size=3")
    told = capsys.readouterr()
    assert status == 2
    assert rows(told.out) == expected
    assert list(rows(told.out)) == sorted(expected)
    lines = told.err.splitlines()
    assert [line for line in lines if line.startswith("left out: ")] == [
        line for line in lines if "a_cut.jpg" in line or "z_text.png" in line
    ]
    assert lines[-1] == "8 captioned; 2 could not be read"


def test_a_csv_file_appears_whole(photos, tiny_checkpoint, expected, tmp_path, capsys):
    out = tmp_path / "new" / "captions.csv"
    assert call(photos, f"checkpoint={tiny_checkpoint}", "max_length=8", f"out={out}") == 2
    assert rows(out.read_text(encoding="utf-8")) == expected
    assert capsys.readouterr().out == ""
    assert [path.name for path in out.parent.iterdir()] == ["captions.csv"]


def test_jsonl_by_name_and_on_standard_output(photos, tiny_checkpoint, expected, tmp_path, capsys):
    pattern = str(photos / "p*.jpg")
    assert call(pattern, f"checkpoint={tiny_checkpoint}", "max_length=8", f"out={tmp_path / 'x.jsonl'}") == 0
    text = (tmp_path / "x.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == [
        {"image_id": str(photos / name), "caption": caption} for name, caption in expected.items()
    ]
    assert call(pattern, f"checkpoint={tiny_checkpoint}", "max_length=8", "format=jsonl") == 0
    assert capsys.readouterr().out == text


def test_no_picture_that_can_be_read_is_a_mistake_and_leaves_no_file(photos, tiny_checkpoint, tmp_path):
    with pytest.raises(UserError, match="none of 1 pictures could be read"):
        call(photos / "z_text.png", f"checkpoint={tiny_checkpoint}", f"out={tmp_path / 'x.csv'}")
    assert list(tmp_path.iterdir()) == []


def test_a_stop_leaves_the_file_that_was_there(photos, tiny_checkpoint, tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    (tmp_path / "x.csv").write_text("before")
    monkeypatch.setattr(Captioner, "_caption", stopped)
    with pytest.raises(KeyboardInterrupt):
        call(photos, f"checkpoint={tiny_checkpoint}", f"out={tmp_path / 'x.csv'}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_spreadsheet_sees_text_and_odd_names_are_spelled_out(tmp_path):
    with open_table(str(tmp_path / "x.csv"), "csv") as write:
        write("=cmd.jpg", '@sum, "quoted"')
        write(os.fsdecode(b"\xff.jpg"), "zwei\nZeilen ü")
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["'=cmd.jpg", '\'@sum, "quoted"'],
            ["\\udcff.jpg", "zwei\nZeilen ü"],
        ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["out=x.txt"], r"out='x\.txt'; expected a name that ends in \.csv or \.jsonl"),
        (["format=xml"], "format='xml'"),
        (["beams=2"], "'beams=2' is no argument; did you mean num_beams"),
        (["batch_size=0"], "batch_size=0; expected 1 or more"),
        (["checkpoint=./nothing"], "checkpoint='./nothing' does not exist"),
    ],
)
def test_mistakes_are_told(photos, tiny_checkpoint, words, told):
    with pytest.raises(UserError, match=told):
        call(photos, f"checkpoint={tiny_checkpoint}", *words)


def test_an_out_that_cannot_be_is_told_before_the_work(tmp_path):
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(UserError, match="is a folder; expected a file"):
        choose_format("", str(tmp_path / "taken.csv"))
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="cannot be written"),
        open_table(str(tmp_path / "file" / "x.csv"), "csv"),
    ):
        raise AssertionError("nothing is to be written")


def test_a_path_with_an_equals_sign_is_a_path(photos, tiny_checkpoint, tmp_path, capsys):
    odd = Path(shutil.copy(sorted(photos.glob("p*.jpg"))[0], tmp_path / "a=b.jpg"))
    assert call(odd, f"checkpoint={tiny_checkpoint}", "max_length=4") == 0
    assert list(rows(capsys.readouterr().out)) == [str(odd)]


def test_help_tells_every_argument(capsys):
    assert call("--help") == 0
    told = capsys.readouterr().out
    assert all(f"{name}=" in told for name in command.DEFAULTS)


@pytest.mark.slow
def test_as_a_command(root, photos, tiny_checkpoint, expected):
    """In a process of its own: the table alone on standard output, the status of some that were broken."""
    words = [f"checkpoint={tiny_checkpoint}", "max_length=8"]
    command = [sys.executable, "-m", "src.predict", str(photos), *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert rows(done.stdout) == expected
    assert "Traceback" not in done.stderr
    assert "attention mask" not in done.stderr


def test_a_mistake_ends_the_command_with_one_line_and_nothing_on_standard_output(
    photos, tiny_checkpoint, capsys
):
    gone = str(photos / "gone.jpg")
    with pytest.raises(SystemExit) as caught:
        run_command(main, [gone, f"checkpoint={tiny_checkpoint}"])
    assert caught.value.code == (
        f"error: {gone!r} does not exist; expected a picture, a folder or a pattern; mend the path"
    )
    assert capsys.readouterr().out == ""
