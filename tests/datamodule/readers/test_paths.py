"""Files, folders and patterns become pictures, each once, in an order that stays."""

import os
import sys
from pathlib import Path

import pytest

from src.datamodule.readers.paths import find_pictures
from src.utils.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "deep/.hidden.jpg", ".cache/d.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def ids(*words: str) -> list[str]:
    return [picture.image_id for picture in find_pictures(words)[0]]


def test_one_folder_gives_paths_below_it(folder):
    found, others = find_pictures([str(folder)])
    assert [picture.image_id for picture in found] == ["a.PNG", "b.jpg", "deep/c.webp"]
    assert [Path(picture.path) for picture in found] == [
        folder / "a.PNG",
        folder / "b.jpg",
        folder / "deep/c.webp",
    ]
    assert others == 1
    assert ids("photos/") == ["a.PNG", "b.jpg", "deep/c.webp"]


def test_files_and_patterns_give_paths_as_they_were_given(folder):
    assert ids("photos/b.jpg", "photos/notes.txt") == ["photos/b.jpg", "photos/notes.txt"]
    assert ids("photos/*.jpg") == ["photos/b.jpg"]
    assert ids("photos/**/*.webp") == ["photos/deep/c.webp"]


def test_a_file_that_is_meant_twice_comes_once(folder):
    assert ids("photos/b.jpg", "photos", "photos/*.jpg") == [
        "photos/b.jpg",
        "photos/a.PNG",
        "photos/deep/c.webp",
    ]


def test_a_name_with_the_signs_of_a_pattern_is_a_name(folder):
    (folder / "[1].jpg").touch()
    assert ids("photos/[1].jpg") == ["photos/[1].jpg"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_a_name_that_is_no_text_is_found(folder):
    (folder / os.fsdecode(b"\xff.jpg")).touch()
    assert ids("photos")[-2:] == [os.fsdecode(b"\xff.jpg"), "deep/c.webp"]


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "no PATH: no picture there"), (["photos/x.jpg"], "'photos/x.jpg' does not exist"),
     (["*.tiff"], r"'\*\.tiff' matches no file"), (["empty"], "empty: no picture there")],
)  # fmt: skip
def test_nothing_is_told(folder, words, told):
    Path("empty").mkdir()
    with pytest.raises(UserError, match=told):
        find_pictures(words)
