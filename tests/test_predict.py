"""The command that captions files: a row for each image, unreadable ones named and skipped."""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from src.captioner import Captioner
from src.predict import find_images, main, write_row
from src.utils.errors import UserError


@pytest.fixture(scope="module")
def images(flickr_folder, tmp_path_factory) -> Path:
    """Ten images, two of them unreadable."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted((flickr_folder / "Images").iterdir())[:8]:
        shutil.copy(path, folder)
    (folder / "a_cut.jpg").write_bytes(next(folder.iterdir()).read_bytes()[:150])
    (folder / "z_text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def expected(images, tiny_checkpoint) -> dict[str, str]:
    good = sorted(path for path in images.iterdir() if path.name[0] == "p")
    captioner = Captioner.from_checkpoint(tiny_checkpoint, max_length=8)
    return dict(zip([path.name for path in good], captioner.caption(good), strict=True))


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def rows(text: str) -> dict[str, str]:
    return {row["image_id"]: row["caption"] for row in csv.DictReader(io.StringIO(text))}


def test_a_folder_with_two_unreadable_files_on_standard_output(images, tiny_checkpoint, expected, capsys):
    assert call(images, f"checkpoint={tiny_checkpoint}", "max_length=8", "batch_size=3") == 2
    printed = capsys.readouterr()
    assert list(rows(printed.out).items()) == sorted(expected.items())
    first, second, last = printed.err.splitlines()
    assert "a_cut.jpg" in first
    assert "z_text.png" in second
    assert last == "8 captioned; 2 could not be read"


def test_csv_and_jsonl_files_appear_whole(images, tiny_checkpoint, expected, tmp_path, capsys):
    settings = [f"checkpoint={tiny_checkpoint}", "max_length=8"]
    out = tmp_path / "new" / "captions.csv"
    assert call(images, *settings, f"out={out}") == 2
    assert rows(out.read_text(encoding="utf-8")) == expected
    assert [path.name for path in out.parent.iterdir()] == ["captions.csv"]
    assert call(images / "p*.jpg", *settings, f"out={tmp_path / 'x.jsonl'}") == 0
    found = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    by_path = {str(images / name): caption for name, caption in expected.items()}
    assert {row["image_id"]: row["caption"] for row in found} == by_path
    assert capsys.readouterr().out == ""


def test_no_readable_image_is_an_error_without_header_or_file(images, tiny_checkpoint, tmp_path, capsys):
    for out in ([], [f"out={tmp_path / 'x.csv'}"]):
        with pytest.raises(UserError, match="of 1 images 1 could not be read"):
            call(images / "z_text.png", f"checkpoint={tiny_checkpoint}", *out)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_empty_captions_are_an_error_or_a_status(images, tiny_checkpoint, monkeypatch, capsys):
    arguments = (images / "p*.jpg", f"checkpoint={tiny_checkpoint}")
    monkeypatch.setattr(Captioner, "_generate", lambda self, pixels: [" "] * len(pixels))
    with pytest.raises(UserError, match="8 got empty captions; expected at least one"):
        call(*arguments)
    monkeypatch.setattr(Captioner, "_generate", lambda self, pixels: ["a dog", *[""] * (len(pixels) - 1)])
    assert call(*arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "1 captioned; 7 empty captions"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_images_and_folders_are_followed(images, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "sub").symlink_to(images)
    (folder / "one.jpg").symlink_to(next(images.glob("p*.jpg")))
    (folder / "same.jpg").symlink_to(next(images.glob("p*.jpg")))  # one blob under two names: two images
    (folder / "loop").symlink_to(folder)
    found = list(find_images([str(folder)]).values())
    assert found == ["one.jpg", "same.jpg", *(f"sub/{path.name}" for path in sorted(images.iterdir()))]


def test_files_of_equal_names_keep_their_folders(tmp_path):
    for name in ("cats/1.jpg", "dogs/1.jpg", ".hidden/1.jpg", "dogs/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(find_images([str(tmp_path)]).values()) == ["cats/1.jpg", "dogs/1.jpg"]
    paths = [str(tmp_path / "cats/1.jpg"), str(tmp_path / "*" / "*.jpg")]
    assert list(find_images(paths)) == [str(tmp_path / "cats/1.jpg"), str(tmp_path / "dogs/1.jpg")]


def test_csv_text_is_as_it_is_and_control_characters_of_names_are_escaped():
    file = io.StringIO()
    write_row(file, "-dog.jpg", '@sum, "quoted"', is_json=False, is_first=True)
    name = os.fsdecode(b"\xff\x1b[2J.jpg") + "\u202e"
    write_row(file, name, "zwei\nZeilen ü", is_json=False, is_first=False)
    header, *rows = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert header == ["image_id", "caption"]
    assert rows == [["-dog.jpg", '@sum, "quoted"'], ["\\udcff\\x1b[2J.jpg\\u202e", "zwei\nZeilen ü"]]


def test_a_stop_leaves_the_file_that_was_there(images, tiny_checkpoint, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    (tmp_path / "x.csv").write_text("before")
    monkeypatch.setattr(Captioner, "_generate", stop)
    with pytest.raises(KeyboardInterrupt):
        call(images, f"checkpoint={tiny_checkpoint}", f"out={tmp_path / 'x.csv'}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x.txt"], r"out='x\.txt'; expected a \.csv or \.jsonl file"),
        (["out=/dev/null/x.csv"], r"out='/dev/null/x\.csv' cannot be written"),
        (["beams=2"], "'beams=2' is no argument; did you mean num_beams"),
        (["exp=*/*.jpg"], r"'exp=\*/\*\.jpg' matches no file"),
        (["gone.jpg"], "'gone.jpg' does not exist; expected an image, a folder or a pattern"),
        (["batch_size=0"], "batch_size=0; expected 1 or more"),
        (["checkpoint=./nothing"], "checkpoint='./nothing' does not exist"),
    ],
)
def test_mistakes_are_named(images, tiny_checkpoint, arguments, message):
    with pytest.raises(UserError, match=message):
        call(images, f"checkpoint={tiny_checkpoint}", *arguments)
